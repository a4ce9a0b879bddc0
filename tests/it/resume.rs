//! Runs that are killed, cut off, or out of disk space go on where they were, without losing or doubling anything.

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::lab::Lab;

/// SplitMix64, which decides when to kill.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }
}

/// A command to kill again and again, and what it leaves if it is not killed.
struct Victim<'a> {
    lab: &'a Lab,
    line: &'a str,
    /// Files beside the rows, which must be those of an uninterrupted run.
    files: &'a [&'a str],
    /// How long an uninterrupted run takes.
    whole: Duration,
    rows: Vec<String>,
}

/// How many kills hit a live process, by what it had done since it was started.
#[derive(Debug, Default)]
struct Kills {
    before_a_row: usize,
    between_rows: usize,
    after_all_rows: usize,
}

impl Kills {
    fn all(&self) -> usize {
        self.before_a_row + self.between_rows + self.after_all_rows
    }
}

impl<'a> Victim<'a> {
    /// Runs the line to its end in `reference`.
    fn new(lab: &'a Lab, line: &'a str, files: &'a [&'a str]) -> Self {
        lab.done(&format!("{line} --out warm")); // so that the program is built and in the page cache
        let start = Instant::now();
        lab.done(&format!("{line} --out reference"));
        let whole = start.elapsed();
        let mut rows: Vec<String> = lab.read("reference/rows.jsonl").lines().map(String::from).collect();
        rows.sort();
        Self { lab, line, files, whole, rows }
    }

    fn spawn(&self) -> Child {
        let mut command: Command = self.lab.command(&format!("{} --out out", self.line));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The complete lines that were written.
    fn written(&self) -> Vec<u8> {
        let mut text = fs::read(self.lab.path("out/rows.jsonl")).unwrap_or_default();
        text.truncate(text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1));
        text
    }

    fn size(&self) -> u64 {
        fs::metadata(self.lab.path("out/rows.jsonl")).map_or(0, |file| file.len())
    }

    /// Waits for a random moment: of the run, of what is still to be written, or of its last steps.
    fn wait(&self, child: &mut Child, dice: &mut Dice) {
        let all: u64 = self.rows.iter().map(|row| row.len() as u64 + 1).sum();
        let (from, micros) = (self.size(), self.whole.as_micros() as u64);
        let (until, then) = match dice.below(8) {
            0..=2 => (0, dice.below(micros / 3)),
            3 => (all, dice.below(micros / 8)),
            _ => (from + 1 + dice.below((all / 8).max(1)), 0),
        };
        let mut lives = || child.try_wait().unwrap().is_none();
        while self.size() < until.min(all) && lives() {
            thread::sleep(Duration::from_micros(200));
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(then) && lives() {
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Kills and resumes until `kills` have hit a live process, starting afresh whenever a run comes to its end.
    fn hunt(&self, kills: usize, dice: &mut Dice) -> Kills {
        let mut hits = Kills::default();
        let mut ended = 0;
        while hits.all() < kills || ended == 0 {
            let before = self.written();
            let mut child = self.spawn();
            self.wait(&mut child, dice);
            let alive = child.try_wait().unwrap().is_none();
            child.kill().unwrap();
            let status = child.wait().unwrap();
            let after = self.written();
            assert!(after.starts_with(&before), "a finished row was lost");
            if alive && status.code().is_none() {
                let rows = |text: &[u8]| text.split_inclusive(|&byte| byte == b'\n').count();
                match rows(&after) {
                    n if n == self.rows.len() => hits.after_all_rows += 1,
                    n if n == rows(&before) => hits.before_a_row += 1,
                    _ => hits.between_rows += 1,
                }
                continue;
            }
            assert!(status.code() == Some(0), "a resumed run failed: {status}");
            self.same();
            fs::remove_dir_all(self.lab.path("out")).unwrap();
            ended += 1;
        }
        println!("{hits:?}; {ended} runs came to their end; {:?} uninterrupted", self.whole);
        hits
    }

    /// Checks that the files are those of an uninterrupted run, byte for byte but for the order of rows.
    fn same(&self) {
        let mut rows: Vec<String> = self.lab.read("out/rows.jsonl").lines().map(String::from).collect();
        rows.sort();
        assert!(rows == self.rows, "the rows are not those of an uninterrupted run");
        self.lab.same(self.files, "out", "reference");
        let fired = |dir: &str| self.lab.json(&format!("{dir}/manifest.json"))["stages"]["sweep"]["fired"].clone();
        assert!(fired("out").is_object(), "a manifest says how often hooks fired");
        assert_eq!(fired("out"), fired("reference"), "what a killed call has counted is lost");
        let names = |dir: &str| -> BTreeSet<_> {
            fs::read_dir(self.lab.path(dir)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names("out"), names("reference"));
    }
}

/// The seed of the moments at which runs are killed.
const SEED: u64 = 20_260_404;

#[test]
fn a_sweep_that_is_killed_200_times_ends_as_if_it_never_was() {
    let lab = Lab::new();
    lab.write_lines("q.jsonl", (0..4).map(|i| json!({"id": format!("q{i}"), "prompt": format!("Où est {i}?")})));
    let line = "sweep --model M --items q.jsonl --heads all --each --lambda 1,1,0.5,0 --max-new-tokens 4 --max-rows 8 \
                --temperature 1";
    let victim = Victim::new(&lab, line, &["sweep.json", "sweep.csv", "lambda.npz", "plan.json", "report.html"]);
    assert_eq!(victim.rows.len(), 4 * (2 + 2 * 24));
    let hits = victim.hunt(200, &mut Dice(SEED));
    assert!(hits.before_a_row > 0 && hits.between_rows > 0 && hits.after_all_rows > 0, "{hits:?}");
}

#[test]
fn a_run_that_is_killed_30_times_ends_as_if_it_never_was() {
    let lab = Lab::new();
    let item = |i: usize| json!({"id": i, "prompt": format!("Is {i} even?"), "label": if i.is_multiple_of(2) { "a" } else { "b" }});
    lab.write_lines("q.jsonl", (0..20).map(item));
    let model = headtemper_tests::golden_dir("llama");
    lab.write(
        "x.toml",
        format!(
            "name = \"x\"\nmodel = {{ path = {:?} }}\nitems = {{ path = \"q.jsonl\" }}\n\
             generate = {{ max_new_tokens = 8, max_rows = 4 }}\n\
             attribute = {{ disposition = \"even\", a = \"a\", b = \"b\", shuffles = 50, min_cohort = 2 }}\n\
             sweep = {{ heads = \"top:3\", each = true, lambdas = [1, 1, 0.5, 0] }}\n",
            model.to_str().unwrap()
        ),
    );
    let files = [
        "judged.jsonl",
        "features.npz",
        "attribution.json",
        "attribution.npz",
        "sweep.json",
        "sweep.csv",
        "lambda.npz",
    ];
    let victim = Victim::new(&lab, "run x.toml", &files);
    victim.hunt(30, &mut Dice(SEED + 1));
}

fn sweep_of_three(lab: &Lab) -> &'static str {
    lab.write_lines("q.jsonl", (0..3).map(|i| json!({"id": format!("q{i}"), "prompt": format!("p{i}")})));
    "sweep --model M --items q.jsonl --heads L0H1 --lambda 1,0 --max-new-tokens 3 --out out"
}

/// Answers that end before a plan's positions are those of the untouched model. The result that nothing differs is refused, also
/// when the same command runs again, by a merge of shards, and by an experiment.
#[test]
fn a_false_null_stays_refused() {
    let lab = Lab::new();
    let label = |i: usize| if i.is_multiple_of(2) { "a" } else { "b" };
    lab.write_lines("q.jsonl", (0..4).map(|i| json!({"id": format!("q{i}"), "prompt": "p", "label": label(i)})));
    let sweep = "sweep --model M --items q.jsonl --raw --lambda 1,1,0 --heads L0H1 --positions window:90..99 \
                 --max-new-tokens 3";
    let refused = |line: &str| {
        let (out, err) = lab.ends(2, line);
        assert!(
            out.is_empty() && err.contains("the hook never fired there, so the result would be a false null"),
            "{err}"
        );
    };
    // What can be known beforehand is refused before anything is written, for a shard as well.
    for more in ["--out out", "--out out --shard 1/2"] {
        refused(&format!("{sweep} {more}"));
        assert!(!lab.path("out").exists());
    }
    // As if answers under λ = 0 had ended before a window that they could have reached.
    let reached = sweep.replace("window:90..99", "response");
    let idle = |dir: &str| {
        let rows = crate::lab::unchecked(&lab.read(&format!("{dir}/rows.jsonl"))).into_iter().map(|mut row| {
            if row["variant"] == "L0H1@0 at response" {
                (row["touched"], row["fired"]) = (false.into(), 0.into());
            }
            row
        });
        lab.write_lines(&format!("{dir}/rows.jsonl"), rows.collect::<Vec<_>>());
    };
    for i in 1..=2 {
        lab.done(&format!("{reached} --out s{i} --shard {i}/2"));
        idle(&format!("s{i}"));
    }
    refused("merge m s1 s2");
    lab.done(&format!("{reached} --out out"));
    idle("out");
    refused(&format!("{reached} --out out"));
    refused("judge --sweep out --endpoint http://127.0.0.1:1/v1 --judge-model m --tasks delivery --out j");
    assert!(!lab.path("j").exists());
    // Who asks for other heads is not told of these.
    let (_, err) = lab.ends(0, &format!("{} --out out", reached.replace("L0H1", "L2H4")));
    assert!(!err.contains("of earlier calls"), "{err}");
    let model = headtemper_tests::golden_dir("llama");
    lab.write(
        "x.toml",
        format!(
            "name = \"x\"\nmodel = {{ path = {:?} }}\nitems = {{ path = \"q.jsonl\", raw = true }}\n\
             generate = {{ max_new_tokens = 3 }}\n\
             attribute = {{ disposition = \"even\", a = \"a\", b = \"b\", shuffles = 20, min_cohort = 2 }}\n\
             sweep = {{ heads = \"L0H1\", lambdas = [1, 1, 0], positions = \"window:90..99\" }}\n",
            model.to_str().unwrap()
        ),
    );
    refused("run x.toml --out run");
    assert!(!lab.path("run").exists());
}

/// If only some of a plan's answers reach its positions, a call that has only the others left to do ends like any other.
#[test]
fn a_plan_is_asked_of_all_its_answers_whichever_call_wrote_them() {
    let lab = Lab::new();
    let prompts = ["a prompt that is long enough to have tokens in the window by itself, whatever follows it", "p"];
    let item = |i: usize| json!({"id": format!("q{i}"), "prompt": prompts[i]});
    let sweep = "sweep --model M --items q.jsonl --raw --lambda 1,1,0 --heads L0H1 --positions window:14..16 \
                 --max-new-tokens 2 --out out";
    lab.write_lines("q.jsonl", (0..2).map(item));
    lab.done(sweep);
    let whole = lab.read("out/rows.jsonl");
    let fired = lab.json("out/manifest.json")["stages"]["sweep"]["fired"].clone();
    assert_eq!(fired["L0H1@0 at window:14..16"], 3, "{fired}");
    let without: String =
        whole.lines().filter(|line| !line.contains("\"id\":\"q1\"")).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(without.lines().count(), 3);
    lab.write("out/rows.jsonl", &without);
    lab.done(sweep);
    assert_eq!(lab.rows("out/rows.jsonl"), whole.lines().map(String::from).collect());
    assert_eq!(lab.json("out/manifest.json")["stages"]["sweep"]["fired"], fired);
}

/// An incomplete tail of the rows is dropped, and that is said; damage elsewhere is refused.
#[test]
fn a_damaged_end_of_the_rows_is_repaired_and_said() {
    let lab = Lab::new();
    let sweep = sweep_of_three(&lab);
    lab.done(sweep);
    let good = lab.read("out/rows.jsonl");
    let last = good[..good.len() - 1].rfind('\n').unwrap() + 1;
    let nuls = "\0".repeat(100);
    for (tail, lost) in [(&good[last..good.len() - 1], good.len() - 1 - last), (&nuls[..], 100), ("x", 1)] {
        lab.write("out/rows.jsonl", format!("{}{tail}", &good[..last]));
        let (_, err) = lab.ends(0, sweep);
        let said = format!("note: the last line of out/rows.jsonl was cut off; its {lost} bytes are dropped");
        assert!(err.contains(&said) && err.contains("6 to do, 5 of them done before"), "{err}");
        assert_eq!(lab.read("out/rows.jsonl"), good);
    }
    let (_, err) = lab.ends(0, sweep);
    assert!(!err.contains("cut off"), "{err}");
    for (text, number) in [(format!("{}\0\0\n{}", &good[..last], &good[last..]), 6), (format!("{{}}\n{good}"), 1)] {
        lab.write("out/rows.jsonl", &text);
        let (out, err) = lab.ends(2, sweep);
        assert!(out.is_empty() && err.contains(&format!("out/rows.jsonl: line {number} is no row")), "{err}");
        assert_eq!(lab.read("out/rows.jsonl"), text, "what is refused stays as it is");
    }
}

/// Two processes never write into one directory.
#[test]
fn a_directory_in_use_is_refused() {
    let lab = Lab::new();
    let sweep = sweep_of_three(&lab);
    lab.done(sweep);
    let file = fs::OpenOptions::new().write(true).open(lab.path("out/.lock")).unwrap();
    file.try_lock().unwrap();
    let (out, err) = lab.ends(2, sweep);
    assert!(out.is_empty() && err.contains("error: out is in use by another process\nhint: wait"), "{err}");
    drop(file);
    lab.done(sweep);

    // Two at once in a fresh directory: one of them is refused, or finds the other's rows.
    let racing = sweep.replace("--out out", "--out fresh");
    let spawn = || lab.command(&racing).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let codes: Vec<Option<i32>> = [spawn(), spawn()].map(|mut child| child.wait().unwrap().code()).into();
    assert!(codes.contains(&Some(0)) && codes.iter().all(|code| [Some(0), Some(2)].contains(code)), "{codes:?}");
    let rows = |dir: &str| {
        let mut rows: Vec<String> = lab.read(&format!("{dir}/rows.jsonl")).lines().map(String::from).collect();
        rows.sort();
        rows
    };
    assert_eq!(rows("fresh"), rows("out"));
}

/// At whatever size the disk is full, no complete row is lost, and the same command goes on.
#[test]
#[cfg(unix)]
fn a_disk_that_fills_up_again_and_again() {
    let lab = Lab::new();
    let sweep = sweep_of_three(&lab);
    lab.done(sweep);
    lab.done(&sweep.replace("--out out", "--out reference").replace("1,0 ", "1,0,0.5,0.6,0.7,0.8,0.9 "));
    let reference = lab.read("reference/rows.jsonl").len();
    let line = sweep.replace("1,0 ", "1,0,0.5,0.6,0.7,0.8,0.9 ");
    let mut failed = 0;
    let start = lab.read("out/rows.jsonl").len() / 1024;
    // Files may not grow beyond `limit` KiB.
    for limit in start.. {
        let before = lab.read("out/rows.jsonl");
        let program = lab.command(&line);
        let mut shell = Command::new("bash");
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script]).arg(program.get_program()).args(program.get_args());
        shell.current_dir(lab.path(".")).env("RAYON_NUM_THREADS", "1");
        let output = shell.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        let after = fs::read_to_string(lab.path("out/rows.jsonl")).unwrap();
        assert!(after.starts_with(&before), "a finished row was lost at {limit} KiB");
        assert!(after.ends_with('\n'), "half a row stays at {limit} KiB");
        if output.status.code() == Some(0) {
            break;
        }
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains("error: cannot write out/") && err.contains("hint: free some space"), "{err}");
        failed += 1;
        assert!(limit < 500, "it never ends");
    }
    assert!(failed > 1, "{failed} failures");
    let rows = |dir: &str| lab.read(&format!("{dir}/rows.jsonl")).lines().map(String::from).collect::<BTreeSet<_>>();
    assert_eq!(rows("out"), rows("reference"));
    assert_eq!(lab.read("out/rows.jsonl").len(), reference, "none twice");
    assert_eq!(lab.read("out/sweep.json"), lab.read("reference/sweep.json"));
}
