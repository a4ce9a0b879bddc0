//! One integration binary: goldens, laws, sites, the command line, layering.

mod golden;
