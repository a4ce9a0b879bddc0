//! Experiments: items, cohorts, attribution, sweeps, reports and the files of a run.
