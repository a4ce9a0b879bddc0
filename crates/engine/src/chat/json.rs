//! The filter `tojson` as transformers defines it: Python's `json.dumps`, which escapes nothing for HTML.

use minijinja::{Error, ErrorKind, Value, value::Kwargs};
use serde_json::Value as Json;

/// How a value is written.
struct Style {
    indent: Option<usize>,
    ascii: bool,
    /// After an element, and after a key.
    separators: (String, String),
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
#[expect(clippy::needless_pass_by_value, reason = "minijinja hands options over")]
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let fail = |why: String| Error::new(ErrorKind::InvalidOperation, format!("tojson: {why}"));
    let indent: Option<usize> = options.get("indent")?;
    let separators = match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(other) => return Err(fail(format!("separators are {}, but must be 2", other.len()))),
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")? == Some(true);
    let sorted = options.get::<Option<bool>>("sort_keys")? == Some(true);
    options.assert_all_used()?;
    if value.is_undefined() {
        return Err(fail("the value is undefined".into()));
    }
    let mut json = serde_json::to_value(value).map_err(|e| fail(e.to_string()))?;
    if sorted {
        json.sort_all_objects();
    }
    let mut out = String::new();
    write(&mut out, &json, &Style { indent, ascii, separators }, 0);
    Ok(out.into())
}

fn write(out: &mut String, value: &Json, style: &Style, depth: usize) {
    match value {
        Json::Array(list) => block(out, "[]", list, style, depth, |out, item| write(out, item, style, depth + 1)),
        Json::Object(map) => block(out, "{}", map, style, depth, |out, (key, value)| {
            text(out, key, style.ascii);
            out.push_str(&style.separators.1);
            write(out, value, style, depth + 1);
        }),
        Json::String(string) => text(out, string, style.ascii),
        other => out.push_str(&other.to_string()),
    }
}

/// Elements between two brackets, each on a line of its own if there is an indent.
fn block<T>(
    out: &mut String,
    brackets: &str,
    elements: impl IntoIterator<Item = T>,
    style: &Style,
    depth: usize,
    each: impl Fn(&mut String, T),
) {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = style.indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent * depth));
        }
    };
    out.push_str(&brackets[..1]);
    let mut empty = true;
    for element in elements {
        if !empty {
            out.push_str(&style.separators.0);
        }
        empty = false;
        line(out, depth + 1);
        each(out, element);
    }
    if !empty {
        line(out, depth);
    }
    out.push_str(&brackets[1..]);
}

/// A string in quotes.
fn text(out: &mut String, string: &str, ascii: bool) {
    for c in Json::from(string).to_string().chars() {
        if ascii && !c.is_ascii() {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    fn dumps(options: &str) -> String {
        let mut environment = Environment::new();
        environment.add_filter("tojson", super::to_json);
        let value = serde_json::json!({"b": ["<é😀>\n", 1, 0.5], "a": {}, "n": null});
        let source = format!("{{{{ x | tojson{options} }}}}");
        environment
            .render_str(&source, context! { x => minijinja::value::Serde(value) })
            .unwrap_or_else(|e| e.to_string())
    }

    /// The expected texts come from Python.
    #[test]
    fn json_is_written_as_python_writes_it() {
        assert_eq!(dumps(""), r#"{"b": ["<é😀>\n", 1, 0.5], "a": {}, "n": null}"#);
        assert_eq!(dumps("(ensure_ascii=true)"), r#"{"b": ["<\u00e9\ud83d\ude00>\n", 1, 0.5], "a": {}, "n": null}"#);
        assert_eq!(dumps("(sort_keys=true, separators=(',', ':'))"), r#"{"a":{},"b":["<é😀>\n",1,0.5],"n":null}"#);
        let lines = ["{", r#"  "b": ["#, r#"    "<é😀>\n","#, "    1,", "    0.5", "  ],", r#"  "a": {},"#];
        assert_eq!(dumps("(indent=2)"), format!("{}\n  \"n\": null\n}}", lines.join("\n")));
        assert!(dumps("(skipkeys=true)").contains("skipkeys"));
    }
}
