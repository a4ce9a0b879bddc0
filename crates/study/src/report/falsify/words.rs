//! What each word of a falsification means, and what its failure modes mean.

use crate::falsify::FailureName;

/// Each word of the report in one line.
pub(super) const GLOSSARY: [(&str, &str); 16] = [
    (
        "probe",
        "a logistic regression on hidden states, standardised by the training items: the probability that an answer is \
        correct. Positive items are those whose label says so.",
    ),
    (
        "AUC",
        "area under the ROC curve: how often a correct item has a higher probability than a wrong one, half for ties. \
        0.5 is chance, and below 0.5 the order is reversed.",
    ),
    (
        "cross-validated",
        "of items that were held out when the probe was fitted, all folds pooled. They are still of the training set: \
        of its sources, its prompts and its time.",
    ),
    ("fresh", "of items that took no part in fitting, in choosing C or in choosing the threshold."),
    (
        "C",
        "inverse strength of the penalty, as in scikit-learn; the one with the largest cross-validated AUC is taken.",
    ),
    (
        "95 % (DeLong)",
        "interval of an AUC, or of the difference of two AUCs on the same items, from the variance of the ranks.",
    ),
    (
        "shuffled labels",
        "the same number after labels were dealt out at random, many times: what nothing to find looks like. Where \
        several C were tried, the largest of them counts there too.",
    ),
    ("p", "share of the shuffles that reach the observed AUC, the observed one counted among them."),
    ("gate", "assert where the probability is at least the threshold, else hedge."),
    (
        "asymmetry",
        "assertion asymmetry: p(assert | wrong) − p(assert | correct). −1 is a perfect gate, 0 is none at all, and \
        above 0 the gate asserts on the wrong answers.",
    ),
    (
        "oracle's",
        "the threshold that the fresh items themselves would have chosen. It was chosen on what it is measured on: it \
        shows what was possible, and decides nothing.",
    ),
    (
        "frozen",
        "the probe, its C and its threshold were written and hashed before a fresh label was read, and the gates before \
        anything was fitted.",
    ),
    (
        "calibration, ECE",
        "whether of the items with a probability of 0.8 eight in ten are correct. ECE is the mean distance over ten \
        bins, weighted by their items; in small sets it is above 0 by chance alone.",
    ),
    ("Brier", "mean squared distance of the probability from what happened. Saying 0.5 of everything gives 0.25."),
    ("gain", "the probe's AUC on fresh items minus the baseline's. A gain whose interval holds 0 may be none."),
    (
        "inconclusive",
        "the items cannot tell: the smaller class is too small, or a number misses its gate while its 95 % interval \
        reaches it.",
    ),
];

/// What a failure mode says about the probe.
pub(super) fn meaning(mode: FailureName) -> &'static str {
    match mode {
        FailureName::SingleOutput => {
            "The probe's probabilities do not tell correct fresh answers from wrong ones. Whatever told them apart in \
            training is not there any more, or was never about being correct."
        }
        FailureName::CapabilityCliff => {
            "The model is right on so few of the fresh items that there is hardly anything to rank. That speaks of the \
            items or of the model, and leaves open what the probe reads."
        }
    }
}
