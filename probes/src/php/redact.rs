//! Taking out of a text what may be a secret, and leaving what tells one call from
//! another. Errs on the side of taking too much.

/// What stands for something taken out.
const GONE: &str = "…";

/// The first words of SQL statements; the list need not be complete, because a text with
/// any of them anywhere near its start is treated as SQL.
const SQL: [&str; 24] = [
    "select", "insert", "update", "delete", "replace", "with", "call", "exec", "execute", "merge", "begin",
    "set", "create", "alter", "drop", "grant", "show", "explain", "declare", "do", "values", "truncate",
    "copy", "load",
];

/// Names in front of `=` or `:` whose values are secrets, in connection strings.
const SECRETS: [&str; 8] = [
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "auth",
    "credential",
    "user",
];

/// A URL, absolute or not: without user and password, and without the values of its
/// query; a fragment goes whole. `cut` text is handled by [`value`].
pub(crate) fn url(text: &str) -> String {
    redact_url(text, false)
}

/// Any text that was given to a function: URLs in it, SQL literals, and what looks like
/// a password in a connection string. `cut`: the text goes on.
pub(super) fn value(text: &str, cut: bool) -> String {
    if looks_like_sql(text) {
        return sql(text);
    }
    if text.contains("://") || text.starts_with('/') {
        return redact_url(text, cut);
    }
    pairs(text)
}

fn redact_url(text: &str, cut: bool) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let mut out = scheme.clone();
    let mut rest = rest;
    if !scheme.is_empty() {
        let end = rest.find(['/', '?', '#']);
        let (authority, after) = rest.split_at(end.unwrap_or(rest.len()));
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(GONE);
                out.push('@');
                out.push_str(host);
            }
            // The `@` may be in what was cut off.
            None if cut && end.is_none() => out.push_str(GONE),
            None => out.push_str(authority),
        }
        rest = after;
    }
    let rest = rest.split('#').next().unwrap_or(rest);
    let Some((path, query)) = rest.split_once('?') else {
        out.push_str(rest);
        return out;
    };
    out.push_str(path);
    let mut separator = '?';
    for pair in query.split(['&', ';']) {
        out.push(separator);
        separator = '&';
        match pair.split_once('=') {
            Some((name, _)) => {
                out.push_str(name);
                out.push('=');
                out.push_str(GONE);
            }
            // A bare value may be a token as well.
            None if pair.is_empty() => {}
            None => out.push_str(GONE),
        }
    }
    out
}

fn looks_like_sql(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut words = words.filter(|word| !word.is_empty()).take(12);
    words.any(|word| SQL.iter().any(|known| known.eq_ignore_ascii_case(word)))
}

/// Quoted strings become `?`, whatever their quotes, and numbers too. A backslash and a
/// doubled quote do not end one, in any dialect; a string without an end goes on to the
/// end of the text. Comments go: they carry ids.
fn sql(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut after_word = false;
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' | '$' if c != '$' || chars.peek() == Some(&'$') => {
                if c == '$' {
                    // Dollar quotes of PostgreSQL may hold anything: the rest goes.
                    out.push_str(GONE);
                    return out;
                }
                skip_quoted(&mut chars, c);
                out.push('?');
                after_word = false;
            }
            '#' => {
                out.push_str(GONE);
                return out;
            }
            '-' if chars.peek() == Some(&'-') => {
                out.push_str(GONE);
                return out;
            }
            '/' if chars.peek() == Some(&'*') => {
                let mut before = ' ';
                chars.next();
                for c in chars.by_ref() {
                    if before == '*' && c == '/' {
                        break;
                    }
                    before = c;
                }
                out.push_str(GONE);
                after_word = false;
            }
            c if c.is_ascii_digit() && !after_word => {
                while chars
                    .peek()
                    .is_some_and(|&c| c.is_ascii_alphanumeric() || c == '.')
                {
                    chars.next();
                }
                out.push('?');
            }
            c => {
                after_word = c.is_alphanumeric() || c == '_' || c == '`';
                out.push(c);
            }
        }
    }
    out
}

fn skip_quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, quote: char) {
    while let Some(c) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            if chars.peek() != Some(&quote) {
                return;
            }
            chars.next();
        }
    }
}

/// `host=db;password=hunter2` without the password. From the first secret on everything
/// goes, because where its value ends is not known.
fn pairs(text: &str) -> String {
    let mut start = 0;
    while let Some(found) = text[start..].find(['=', ':']) {
        let at = start + found;
        let name = text[..at]
            .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        if SECRETS.iter().any(|secret| name.contains(secret)) {
            return format!("{}{GONE}", &text[..=at]);
        }
        start = at + 1;
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_user_query_and_fragment() {
        for (text, expected) in [
            ("/slow?token=secret&page=2", "/slow?token=…&page=…"),
            ("/slow?secret", "/slow?…"),
            ("/slow?", "/slow?"),
            ("https://u:p@w@example.org/a?b=c#d", "https://…@example.org/a?b=…"),
            ("http://example.org", "http://example.org"),
            ("php://memory", "php://memory"),
            ("/path#token", "/path"),
        ] {
            assert_eq!(url(text), expected);
        }
        assert_eq!(value("https://user:hunter2", true), "https://…");
        assert_eq!(value("https://user:hunter2", false), "https://user:hunter2");
        assert_eq!(value("ftp://host/file", true), "ftp://host/file");
    }

    #[test]
    fn sql_loses_its_literals() {
        for (text, expected) in [
            (
                "SELECT * FROM t2 WHERE a = 'it''s \\' x' AND b=12.5",
                "SELECT * FROM t2 WHERE a = ? AND b=?",
            ),
            (" (select 1)", " (select ?)"),
            (
                "INSERT INTO a VALUES (\"x\", -3, 0xff)",
                "INSERT INTO a VALUES (?, -?, ?)",
            ),
            ("select 'no end", "select ?"),
            ("/* user 7 */ select 1", "… select ?"),
            ("select 1 -- user 7", "select ? …"),
            ("select $$x$$", "select …"),
            ("update t set a=:name", "update t set a=:name"),
        ] {
            assert_eq!(value(text, false), expected);
        }
    }

    #[test]
    fn connection_strings_lose_their_passwords_and_names_stay() {
        assert_eq!(
            value("mysql:host=db;password=hunter2;x=1", false),
            "mysql:host=db;password=…"
        );
        assert_eq!(value("Authorization: Bearer x", false), "Authorization:…");
        assert_eq!(value("plain text", false), "plain text");
        assert_eq!(value("é=ü", false), "é=ü");
        assert_eq!(value("/etc/hosts", false), "/etc/hosts");
    }
}
