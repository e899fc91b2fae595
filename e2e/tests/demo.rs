//! `holdfast demo`, as a newcomer runs it, only shorter.

use std::time::Duration;

use holdfast_e2e::run;

#[test]
fn the_demo_loses_nothing_and_says_so() {
    let arguments = ["demo", "--devices", "50", "--seconds", "3", "--json"];
    let (status, stdout, stderr) = run(&arguments, Duration::from_mins(1)).unwrap();
    assert!(status.success(), "{status}\n{}", String::from_utf8_lossy(&stderr));
    let verdict: serde_json::Value = serde_json::from_slice(&stdout).expect("one JSON document on stdout");
    let number =
        |key: &str| verdict[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {verdict:#}"));
    assert_eq!(number("lost"), 0);
    assert_eq!(number("duplicated"), 0);
    assert_eq!(number("reordered"), 0);
    assert!(number("sent") > 0);
    assert_eq!(number("acked"), number("found"));
}
