//! `docs/migrating.md` names every flag and directive that the code knows, with a verdict,
//! and none besides.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

const PAGE: &str = "docs/migrating.md";
const DIRECTIVES: &str = "src/config/directives.rs";
const FLAGS: &str = "src/cli/flags/mod.rs";

/// Headings of the page's tables.
const FLAG_TABLE: &str = "## Command line";
const GLOBAL_TABLE: &str = "## Directives of `[global]`";
const POOL_TABLE: &str = "## Directives of pools";

/// Names every place where page and code differ.
pub(crate) fn check(broken: &mut Vec<String>) -> Result<()> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let (page, directives, flags) = (read(PAGE)?, read(DIRECTIVES)?, read(FLAGS)?);
    compare(&page, &directives, &flags, broken);
    Ok(())
}

fn compare(page: &str, directives: &str, flags: &str, broken: &mut Vec<String>) {
    let pool = part(directives, "const POOL")
        .into_iter()
        .flat_map(|text| literals_after(text, "directive("))
        .chain(
            part(directives, "fn name(self)")
                .into_iter()
                .flat_map(|text| literals_after(text, "=> ")),
        );
    let global = part(directives, "const GLOBAL")
        .into_iter()
        .flat_map(|text| literals_after(text, "directive("));
    let flags = part(flags, "const FLAGS").unwrap_or_default();
    for (heading, known) in [
        (FLAG_TABLE, flag_names(flags)),
        (GLOBAL_TABLE, global.collect()),
        (POOL_TABLE, pool.collect()),
    ] {
        if known.is_empty() {
            broken.push(format!(
                "{PAGE}: no names for \"{heading}\" were found in the code"
            ));
        }
        compare_table(page, heading, &known, broken);
    }
}

fn compare_table(page: &str, heading: &str, known: &BTreeSet<String>, broken: &mut Vec<String>) {
    let mut listed = BTreeSet::new();
    let section = page
        .split_once(&format!("{heading}\n"))
        .map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let row = format!("`{row}");
        let (names, verdict) = row.split_once('|').unwrap_or((&row, ""));
        let verdict = verdict.trim().trim_end_matches('|').trim();
        // The names are what stands between backticks.
        for name in names.split('`').skip(1).step_by(2) {
            if !known.contains(name) {
                broken.push(format!(
                    "{PAGE}: \"{heading}\" has {name}, which the code does not know"
                ));
            }
            listed.insert(name.to_owned());
            if !is_verdict(verdict) {
                broken.push(format!(
                    "{PAGE}: {name} has no verdict (same, better: how, not supported: why): {verdict:?}"
                ));
            }
        }
    }
    for name in known.difference(&listed) {
        broken.push(format!("{PAGE}: \"{heading}\" lacks {name}"));
    }
}

fn is_verdict(text: &str) -> bool {
    let explained = |word: &str| text.strip_prefix(word).is_some_and(|how| how.trim().len() > 10);
    text == "same" || explained("better: ") || explained("not supported: ")
}

/// From this word on to the end of that item, which is the first line that closes it at
/// its own indentation.
fn part<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (before, rest) = text.split_once(start)?;
    let line = before.rsplit('\n').next().unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    let end = ["];", "}"]
        .iter()
        .filter_map(|close| rest.find(&format!("\n{indent}{close}")))
        .min()?;
    Some(&rest[..end])
}

/// The string literals that follow this word, whatever white space is between.
fn literals_after<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = String> + 'a {
    text.split(word).skip(1).filter_map(|rest| {
        let literal = rest.trim_start().strip_prefix('"')?;
        literal.split('"').next().map(str::to_owned)
    })
}

/// `-c` and `--php-ini` of `(Some(b'c'), true, "php-ini", …)`; what has no short name is
/// not php-fpm's.
fn flag_names(table: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for row in table.split("(Some(b'").skip(1) {
        let (Some(short), Some(long)) = (row.chars().next(), row.split('"').nth(1)) else {
            continue;
        };
        names.insert(format!("-{short}"));
        names.insert(format!("--{long}"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTIVES: &str = r#"
pub(super) const GLOBAL: &[Directive<RawGlobal>] = &[
    directive("pid", Text(|global| &mut global.pid)),
];
pub(super) const POOL: &[Directive<RawPool>] = &[
    directive(
        "listen.owner",
        Text(|pool| &mut pool.owner),
    ),
];
impl Array {
    fn name(self) -> &'static str {
        match self {
            Self::Env => "env",
        }
    }
}
"#;
    const FLAGS: &str = r#"
const FLAGS: &[(Option<u8>, bool, &str, Flag)] = &[
    (Some(b'c'), true, "php-ini", Flag::Ini),
    (None, true, "config", Flag::Overlay),
];
"#;
    const PAGE: &str = "\
## Command line
| flag | verdict |
|---|---|
| `-c`, `--php-ini` | same |

## Directives of `[global]`
| `pid` | better: it is never written in part |
## Directives of pools
| `listen.owner` | same |
| `env` | not supported: there is no environment |
";

    fn broken(page: &str) -> Vec<String> {
        let mut broken = Vec::new();
        compare(page, DIRECTIVES, FLAGS, &mut broken);
        broken
    }

    #[test]
    fn a_page_with_all_of_them_is_good() {
        assert_eq!(broken(PAGE), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        for (from, to, wanted) in [
            ("| `env` |", "| `environment` |", "lacks env"),
            ("| `env` |", "| `environment` |", "has environment"),
            (
                "| `pid` | better: it is never written in part |\n",
                "",
                "lacks pid",
            ),
            ("`--php-ini`", "", "lacks --php-ini"),
            (
                "| `listen.owner` | same |",
                "| `listen.owner` | better: |",
                "listen.owner has no verdict",
            ),
            ("## Directives of pools", "## Pools", "lacks listen.owner"),
        ] {
            let found = broken(&PAGE.replace(from, to));
            assert!(
                found.iter().any(|line| line.contains(wanted)),
                "{wanted}: {found:?}"
            );
        }
    }

    #[test]
    fn the_page_of_this_repository_is_complete() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).expect("reads");
        let mut broken = Vec::new();
        compare(
            &read(super::PAGE),
            &read(super::DIRECTIVES),
            &read(super::FLAGS),
            &mut broken,
        );
        assert_eq!(broken, Vec::<String>::new());
    }
}
