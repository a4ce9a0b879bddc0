//! `temper verify`: whether this build computes what it should, on this model and this machine.

use anyhow::Result;
use headtemper_engine::verify::{self, Check, Golden};
use headtemper_model::Level;
use serde_json::json;

use crate::{Done, args::Verify, model, ui};

/// Tokens that the model must be able to read for the laws: a prompt and three decode steps, in pieces.
const SHORTEST: usize = 8;

pub(crate) fn run(args: &Verify) -> Result<Done> {
    let golden = args.golden.as_deref().map(Golden::read).transpose()?;
    let engine = model::open(&args.model.run(&args.how), None)?;
    let context = engine.spec().context;
    anyhow::ensure!(
        context >= SHORTEST,
        "the model's context is {context} tokens, but the laws need at least {SHORTEST}"
    );
    let identity = json!(engine.identity());
    let mut table = Table::new(!args.json);
    for law in verify::LAWS {
        table.add(law(engine.model()))?;
    }
    if let Some(golden) = &golden {
        for check in golden.text_checks(&engine)? {
            table.add(check)?;
        }
        for check in golden.checks(engine.model())? {
            table.add(check)?;
        }
    }
    table.add(if args.quick { verify::folded_skipped() } else { verify::folded(engine) })?;
    let failed = table.0.iter().filter(|check| check.failed()).count();
    if args.json {
        let facts = json!({
            "identity": identity,
            "kernels": Level::best().name(),
            "threads": rayon::current_num_threads(),
            "checks": table.0,
            "passed": failed == 0,
        });
        ui::put_json(&facts)?;
    } else {
        ui::put(&summary(&table.0))?;
    }
    Ok(if failed == 0 { Done::Well } else { Done::CheckFailed })
}

/// The checks so far, and whether each is printed as it comes: a large model takes its time.
struct Table(Vec<Check>, bool);

impl Table {
    fn new(printed: bool) -> Self {
        Self(Vec::new(), printed)
    }

    fn add(&mut self, check: Check) -> Result<()> {
        if self.1 {
            let head = if self.0.is_empty() {
                format!("{:<35} {:>9} {:>9}\n", "law", "measured", "allowed")
            } else {
                String::new()
            };
            ui::put(&(head + &line(&check)))?;
        }
        self.0.push(check);
        Ok(())
    }
}

/// A check as a line of the table.
pub(crate) fn line(check: &Check) -> String {
    let number = |x: f64| if x == 0.0 || x >= 1.0 { format!("{x}") } else { format!("{x:.1e}") };
    let measured = check.measured.map_or("-".into(), number);
    let verdict = match check.passed {
        Some(true) => "ok",
        Some(false) => "FAILED",
        None => "skipped",
    };
    format!("{:<35} {measured:>9} {:>9}  {verdict:<7}  {}\n", check.name, number(check.allowed), check.note)
}

fn summary(checks: &[Check]) -> String {
    let count = |passed: Option<bool>| checks.iter().filter(|check| check.passed == passed).count();
    let skipped = match count(None) {
        0 => String::new(),
        skipped => format!(", {skipped} skipped"),
    };
    match count(Some(false)) {
        0 => format!("{} checks hold{skipped}\n", count(Some(true))),
        failed => format!("{failed} of {} checks FAILED{skipped}\n", checks.len()),
    }
}
