//! The page of a falsification.

use super::{
    html::{close, open, warning_list},
    text::{escape, put},
};
use crate::falsify::{Falsification, word};

/// The whole page.
pub(crate) fn falsify(found: &Falsification) -> String {
    let mut out = open(&found.title, "falsification");
    put!(out, "<p>{}: {}</p>", word(found.verdict), escape(&found.sentence));
    out += &warning_list(&found.warnings);
    out + "</header>" + &close()
}
