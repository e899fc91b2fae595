"""Checks each dependency's licence and source against deny.toml, from `cargo metadata` alone.

The same rules as cargo-deny's `licenses` and `sources`, for machines where it is not installed: building it takes
longer than all other checks together. Exits with 1 and one line for each crate that is not allowed.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

# How Cargo.lock ends the source of what comes from crates.io.
CRATES_IO = "/crates.io-index"


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    rules = tomllib.loads((root / "deny.toml").read_text(encoding="utf-8"))
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    for target in rules["graph"]["targets"]:
        command += ["--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=root, check=True, capture_output=True).stdout)
    complaints = complaints_about(metadata["packages"], rules, dependents(metadata))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    print(f"licences: {len(metadata['packages'])} crates looked at, {len(complaints)} not allowed")
    return 1 if complaints else 0


def dependents(metadata: dict) -> dict[str, set[str]]:
    """The names of those that depend on each crate, by its name."""
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    found: dict[str, set[str]] = {}
    for node in metadata["resolve"]["nodes"]:
        for dependency in node["dependencies"]:
            found.setdefault(names[dependency], set()).add(names[node["id"]])
    return found


def complaints_about(packages: list[dict], rules: dict, dependents: dict[str, set[str]]) -> list[str]:
    """One line for each package that the rules do not allow. A banned one may come through its `wrappers`, and no other way."""
    complaints = []
    everywhere = set(rules["licenses"]["allow"])
    exceptions = {rule["crate"]: set(rule["allow"]) for rule in rules["licenses"]["exceptions"]}
    banned = {rule["crate"]: set(rule.get("wrappers", [])) for rule in rules["bans"]["deny"]}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        allowed = everywhere | exceptions.get(package["name"], set())
        licence = package["license"]
        if licence is None:
            complaints.append(f"{name}: states no licence expression")
        elif not is_allowed(licence, allowed):
            complaints.append(f"{name}: licence {licence!r} is not on the list in deny.toml")
        # A package without a source is one of the workspace.
        source = package["source"]
        if source is not None and not (source.startswith("registry+") and source.endswith(CRATES_IO)):
            complaints.append(f"{name}: comes from {source}, not from crates.io")
        if package["name"] in banned:
            wrappers = banned[package["name"]]
            others = sorted(dependents.get(package["name"], set()) - wrappers)
            if not wrappers:
                complaints.append(f"{name}: banned by deny.toml")
            elif others:
                complaints.append(f"{name}: banned by deny.toml for {', '.join(others)}")
    return complaints


def is_allowed(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met with allowed licences only. What cannot be read is not allowed."""
    # Crates from before SPDX expressions write "MIT/Apache-2.0" and mean OR.
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    try:
        verdict, rest = read_any(tokens, allowed)
    except (IndexError, ValueError):
        return False
    return verdict and not rest


def read_any(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    verdict, tokens = read_all(tokens, allowed)
    while tokens and tokens[0] == "OR":
        other, tokens = read_all(tokens[1:], allowed)
        verdict = verdict or other
    return verdict, tokens


def read_all(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    """AND binds closer than OR."""
    verdict, tokens = read_one(tokens, allowed)
    while tokens and tokens[0] == "AND":
        other, tokens = read_one(tokens[1:], allowed)
        verdict = verdict and other
    return verdict, tokens


def read_one(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        verdict, tokens = read_any(tokens[1:], allowed)
        if tokens[0] != ")":
            raise ValueError("no closing parenthesis")
        return verdict, tokens[1:]
    if tokens[0] in (")", "AND", "OR", "WITH"):
        raise ValueError(f"{tokens[0]} where a licence should stand")
    licence, tokens = tokens[0], tokens[1:]
    if tokens and tokens[0] == "WITH":
        licence, tokens = f"{licence} WITH {tokens[1]}", tokens[2:]
    return licence in allowed, tokens


if __name__ == "__main__":
    sys.exit(main())
