//! Which release this is, and which commit it was made of (`build.rs`).

use metrics::{describe_gauge, gauge};

/// What `--version` says.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SOURCE_COMMIT"), ")");

/// Always 1: what it says stands in its labels.
const BUILD_INFO: &str = "holdfast_build_info";

/// Shows it among the metrics of the recorder that is installed.
pub(crate) fn show() {
    describe_gauge!(BUILD_INFO, "Which release this process is, and which commit it was made of; always 1");
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("SOURCE_COMMIT"));
    gauge!(BUILD_INFO, "version" => version, "commit" => commit).set(1.0);
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn metrics_and_command_line_name_the_same_commit() {
        let (version, commit) = VERSION.split_once(' ').unwrap();
        let commit = commit.trim_matches(['(', ')']);
        assert!(!commit.is_empty() && !commit.contains(char::is_whitespace), "{VERSION}");
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, show);
        let line = format!("holdfast_build_info{{version=\"{version}\",commit=\"{commit}\"}} 1");
        let text = recorder.handle().render();
        assert!(text.lines().any(|shown| shown == line), "{line} is missing in {text}");
    }
}
