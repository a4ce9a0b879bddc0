//! What each word of a causal map means.

/// Each column of the report in one line.
pub(super) const GLOSSARY: [(&str, &str); 14] = [
    ("z", "what a head hands to its layer's output projection, per token, after any output gate."),
    ("λ", "factor on the z of the one tempered head, at every token of prompt and response: 1 untouched, 0 ablated."),
    (
        "scored tokens",
        "the response's tokens, each given the recorded ones before it (teacher-forced): nothing is generated.",
    ),
    (
        "Δ",
        "log-probability of the response's tokens, tempered minus untempered, in nats; divided by the item's tokens \
        where it says a token.",
    ),
    ("mean Δ", "Δ a token, averaged over items."),
    (
        "95 %",
        "Student's t interval of the mean, over prompts (or groups, where items are grouped); of d the percentiles of a bootstrap \
        within the cohorts, somewhat narrow where they are small. It holds for this head alone, chosen before the data were seen.",
    ),
    (
        "KL",
        "Kullback-Leibler divergence of the tempered next-token distribution from the untempered one, in nats a token, \
        averaged over items: what changes whether or not the response's own token is concerned.",
    ),
    ("agreement", "share of scored tokens at which both models have the same likeliest token, averaged over items."),
    (
        "sign flips",
        "the same mean after the signs of the Δ of prompts (or groups) were flipped at random: what no effect at all looks like, if \
        gains and losses are equally likely.",
    ),
    ("p", "how often sign flips give a mean as far from 0, for this head and λ alone."),
    (
        "p max",
        "how often they give that to any head at any λ, each in units of its own root mean square: corrected for having \
        looked at every head. In a contrast: the same with the largest |d| under shuffled labels.",
    ),
    (
        "d",
        "Cohen's d of Δ a token between two cohorts: difference of means over the pooled standard deviation (n − 1).",
    ),
    (
        "shuffled labels",
        "the same computation after the cohort labels were dealt out at random, many times: what no difference looks \
        like.",
    ),
    ("nats", "log-probabilities are natural logarithms; Δ = −0.69 halves a probability."),
];
