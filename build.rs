//! Tells the binary which commit it is made of: `SOURCE_COMMIT` in the environment, which is for those who build from an archive; else what git says
//! of this checkout; else `unknown`. (Its name does not begin with `HOLDFAST_`: what does is a key to the binary itself, wherever it is still set.)
//!
//! Run again only when one of these changes, so a build that follows another one costs nothing more.

use std::path::{Path, PathBuf};
use std::process::Command;

const VARIABLE: &str = "SOURCE_COMMIT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let given =
        std::env::var(VARIABLE).ok().and_then(|given| Some(given.split_whitespace().next()?.to_owned()));
    let commit = given.or_else(of_checkout).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env={VARIABLE}={commit}");
}

/// None where there is no git, or this folder is only a part of somebody else's checkout.
fn of_checkout() -> Option<String> {
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().ok()? {
        return None;
    }
    watch(Path::new(&git(&["rev-parse", "--git-path", "HEAD"])?));
    if let Some(branch) = git(&["symbolic-ref", "--quiet", "HEAD"]) {
        let loose = PathBuf::from(git(&["rev-parse", "--git-path", &branch])?);
        if loose.exists() {
            watch(&loose);
        } else {
            // A commit makes the file, in a folder that is there or in one that is made.
            watch(Path::new(&git(&["rev-parse", "--git-path", "packed-refs"])?));
            if let Some(folder) = loose.ancestors().find(|folder| folder.is_dir()) {
                watch(folder);
            }
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// Cargo would run us at each build for a file that is not there.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}
