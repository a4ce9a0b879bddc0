//! What transformers provides to a template: jinja2 with its own settings, and the methods of Python's strings.

use std::borrow::Cow;

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, from_args},
};
use minijinja_contrib::{filters::datetimeformat, globals::now, pycompat::unknown_method_callback};

use super::json::to_json;

/// An environment set up as `_compile_jinja_template` of transformers does.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let whitespace = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(whitespace.expect("the delimiters are the usual ones"));
    environment.set_unknown_method_callback(method);
    environment.add_filter("tojson", to_json);
    environment.add_filter("trim", |text: String, of: Option<String>| strip(&text, of.as_deref(), BOTH).to_string());
    // minijinja would treat none as an empty list here.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: String| -> Result<(), Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    // Python's `now` is local time; this is UTC.
    environment.add_function("strftime_now", |state: &State, format: &str| {
        datetimeformat(state, now(), Kwargs::from_iter([("format", Value::from(format))]))
    });
    environment
}

/// Replaces the tags `generation` and `endgeneration`, with which a template marks what is trained on, by tags that do nothing.
pub(super) fn without_generation(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut parts = source.split("{%");
    let mut out = String::from(parts.next().unwrap_or_default());
    for part in parts {
        let tag =
            part.split("%}").next().unwrap_or_default().trim_matches(|c: char| c.is_whitespace() || "+-".contains(c));
        let part = match tag {
            // `with` has a scope of its own, like the call block that `generation` is in transformers.
            "generation" => part.replacen("generation", "with", 1),
            "endgeneration" => part.replacen("endgeneration", "endwith", 1),
            _ => part.into(),
        };
        out.push_str("{%");
        out.push_str(&part);
    }
    Cow::Owned(out)
}

/// Which ends are stripped: left, right.
type Ends = (bool, bool);
const BOTH: Ends = (true, true);

/// Methods of Python's values. Those that look for white space use Python's definition of it.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, name, args) };
    let ends = match name {
        "strip" => BOTH,
        "lstrip" => (true, false),
        "rstrip" => (false, true),
        "split" if args.is_empty() => return Ok(text.split(is_space).filter(|word| !word.is_empty()).collect()),
        _ => return unknown_method_callback(state, value, name, args),
    };
    let (of,): (Option<&str>,) = from_args(args)?;
    Ok(strip(text, of, ends).into())
}

/// `str.strip`.
fn strip<'a>(text: &'a str, of: Option<&str>, (left, right): Ends) -> &'a str {
    let goes = |c: char| of.map_or_else(|| is_space(c), |of| of.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    if right { text.trim_end_matches(goes) } else { text }
}

/// `str.isspace`: Python counts the four ASCII separators as white space, Unicode does not.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> String {
        environment().render_str(&without_generation(source), minijinja::context! {}).unwrap()
    }

    #[test]
    fn strings_are_stripped_as_in_python() {
        assert_eq!(
            render(r"{{ '\u001f a \n'.strip() }}|{{ '\n\na\n'.lstrip('\n') }}|{{ 'xax'.rstrip('x') }}"),
            "a|a\n|xa"
        );
        assert_eq!(render(r"{{ ' \u001ca ' | trim }}|{{ '--a-' | trim('-') }}"), "a|a");
        assert_eq!(
            render(r"{{ 'a \u001f b'.split()[-1] }}|{{ '<t>a</t>b'.split('</t>')[0].split('<t>')[-1] }}"),
            "b|a"
        );
    }

    #[test]
    fn what_is_marked_as_generated_is_rendered_in_place() {
        assert_eq!(render("a {%- generation -%} b {%- endgeneration %} c"), "ab c");
        assert_eq!(render("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}"), "21");
        assert_eq!(without_generation("{% if add_generation_prompt %}"), "{% if add_generation_prompt %}");
    }

    #[test]
    fn today_is_known() {
        let today = render("{{ strftime_now('%d %b %Y') }}");
        assert!(today.len() == 11 && today.split(' ').count() == 3, "{today}");
    }
}
