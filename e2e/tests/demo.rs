//! `holdfast demo`, as a newcomer runs it, only shorter.

use std::time::Duration;

use holdfast_e2e::run;

#[test]
fn the_demo_loses_nothing_and_says_so() {
    let arguments = ["demo", "--devices", "50", "--seconds", "3", "--json"];
    let demo = run(&arguments, Duration::from_mins(1));
    assert!(demo.status.success(), "{}\n{}", demo.status, demo.stderr);
    let verdict: serde_json::Value = serde_json::from_str(&demo.stdout).expect("one JSON document on stdout");
    assert_eq!(
        (&verdict["passed"], &verdict["faults"]),
        (&true.into(), &serde_json::json!([])),
        "{verdict:#}"
    );
    let frames = |key: &str| {
        verdict["frames"][key].as_u64().unwrap_or_else(|| panic!("no frames.{key} in {verdict:#}"))
    };
    assert!(frames("sent") > 0);
    assert_eq!(frames("acked"), frames("sent"));
    assert_eq!(frames("found"), frames("sent"));
    for fault in ["lost", "duplicated", "reordered", "unexplained"] {
        assert_eq!(frames(fault), 0, "{fault}");
    }
}
