//! Every line here was also given to PHP 8.2's own INI scanner in normal mode; the differences are marked.

use super::super::effective::Environment;
use super::super::ini::{Statement, parse_line};

fn environment() -> Environment {
    [("SPACED", "ex y"), ("EMPTY", "")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn parse(line: &str) -> Result<Option<Statement>, String> {
    parse_line(line.as_bytes(), &environment()).map_err(|fault| {
        let help = fault.allowed().unwrap_or_default();
        format!("{fault} {help}").trim_end().to_owned()
    })
}

#[test]
fn values_are_what_php_makes_of_them() {
    let table = [
        ("b", "b"),
        ("", ""),
        (";c", ""),
        ("x ; c", "x"),
        ("x;c", "x"),
        ("x y  z   ", "x y  z"),
        ("b\tc", "b\tc"),
        // Quotes and adjacent pieces.
        (r#""b"c'd'"#, "bcd"),
        (r#"x "b" c"#, "xbc"),
        (r#""b" "c""#, "bc"),
        (r#"x"y" z "w" v"#, "xyzwv"),
        (r#"x 'y' z"#, "x y z"),
        (r#"'x' y"#, "x y"),
        (r#"'x' "y""#, "xy"),
        (r#""x" 'y'"#, "xy"),
        (r#""x;c""#, "x;c"),
        ("'x;c' ; d", "x;c"),
        ("'it''s'", "its"),
        (r#"'a\b'"#, r"a\b"),
        (r#""a\"b\\c\nd\'e""#, r#"a"b\c\nd\'e"#),
        (r#""multi" ; c "x""#, "multi"),
        ("''", ""),
        (r#""""#, ""),
        // Words that mean something, and words that only look so.
        ("yes", "1"),
        ("YES ; c", "1"),
        ("true", "1"),
        ("Off", ""),
        ("none", ""),
        ("null", ""),
        (r#""yes""#, "yes"),
        ("no-way", "no-way"),
        ("yesterday", "yesterday"),
        ("offline", "offline"),
        ("E_ALL", "32767"),
        ("x E_ALL y", "x 32767 y"),
        (r#""x"E_ALL"#, "x32767"),
        ("xE_ALL", "xE_ALL"),
        ("E_ALL-x", "E_ALL-x"),
        ("E_ALL,x", "E_ALL,x"),
        // Variables.
        ("${SPACED}", "ex y"),
        ("y ${SPACED}/z", "y ex y/z"),
        ("${ SPACED } y", "ex y y"),
        (r#""p${SPACED}q""#, "pex yq"),
        ("'${SPACED}'", "${SPACED}"),
        ("${NOPE}", ""),
        ("$pool", "$pool"),
        (r#""a$""#, "a$"),
        ("E_ALL${SPACED}", "32767ex y"),
        // PHP 8.3's default, which 8.2 reads as nothing.
        ("${NOPE:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${SPACED:-d}", "ex y"),
        // Integer expressions: one precedence, from the left.
        ("1|2", "3"),
        ("3 |4", "7"),
        ("6 & 3 | 8", "10"),
        ("8 | 6 & 3", "2"),
        ("3 ^ 1", "2"),
        ("~1 & 7", "6"),
        ("~(1|2) & 7", "4"),
        ("(1|2)&1", "1"),
        ("-1 & 7", "7"),
        ("!1", "0"),
        ("!!5", "1"),
        ("E_ALL & ~E_DEPRECATED & ~E_STRICT", "22527"),
        ("(E_ALL)", "32767"),
        (r#"1|"2""#, "3"),
        // Characters that need no quotes.
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("[::1]:9000", "[::1]:9000"),
        ("a,b{c}%d?e`f`", "a,b{c}%d?e`f`"),
        (r"a\b", r"a\b"),
        ("-5", "-5"),
        ("007", "007"),
    ];
    for (text, expected) in table {
        let expected = Statement::Scalar {
            name: "a".into(),
            value: expected.into(),
        };
        assert_eq!(parse(&format!("a = {text}")), Ok(Some(expected)), "a = {text}");
    }
}

#[test]
fn values_that_are_refused() {
    let table = [
        (
            "yes please",
            "unexpected 'yes' in the value of 'a': quote the value",
        ),
        ("x yes", "unexpected 'yes'"),
        (r#"on"x""#, "unexpected 'on'"),
        (r#""x"on"#, "unexpected 'on'"),
        ("${SPACED} on", "unexpected 'on'"),
        ("E_ALL|yes", "unexpected 'yes'"),
        ("yes|1", "unexpected 'yes'"),
        ("a=b", "unexpected '=b' in the value of 'a': quote the value"),
        ("\"open", "missing closing \" or } in the value of 'a'"),
        ("'open", "missing closing ' in the value of 'a'"),
        ("${SPACED", "missing closing } in the value of 'a'"),
        ("\"${SPACED\"", "missing closing \" or }"),
        ("^1", "unquoted ^ computes with integers, found '^'"),
        ("1|", "unquoted | computes with integers, found 'end of line'"),
        ("()", "found ')'"),
        ("(1", "found 'end of line'"),
        ("4 (1)", "found '('"),
        ("1~2", "found '~'"),
        // PHP says 0, "it" and -1 to these; and its own version to the last.
        (
            "a&b",
            "unquoted & computes with integers, found 'a': quote the value if it is text",
        ),
        ("it's", "missing closing '"),
        ("99999999999999999999|0", "found '99999999999999999999'"),
        (
            "PHP_VERSION",
            "PHP constant 'PHP_VERSION' in the value of 'a' is not known outside PHP",
        ),
    ];
    for (text, expected) in table {
        let refused = parse(&format!("a = {text}")).expect_err(text);
        assert!(refused.contains(expected), "{text}: {refused}");
    }
    let deep = format!("a = {}1{}", "(".repeat(1000), ")".repeat(1000));
    assert!(parse(&deep).is_err());
}

#[test]
fn lines() {
    let scalar = |name: &str, value: &str| Statement::Scalar {
        name: name.into(),
        value: value.into(),
    };
    let array = |key: &str| Statement::Array {
        name: "a".into(),
        key: key.into(),
        value: "c".into(),
    };
    let table = [
        ("", None),
        ("   \t ", None),
        ("; comment", None),
        ("  ; comment = x", None),
        ("[www]", Some(Statement::Section("www".into()))),
        ("  [www] ; comment", Some(Statement::Section("www".into()))),
        ("   a   =   b   ", Some(scalar("a", "b"))),
        ("a =b", Some(scalar("a", "b"))),
        ("\ta\t=\tb\t", Some(scalar("a", "b"))),
        ("a b = c", Some(scalar("a b", "c"))),
        ("#c = d", Some(scalar("#c", "d"))),
        ("a[b] = c", Some(array("b"))),
        ("a[b]= c", Some(array("b"))),
        ("a [b] = c", Some(array("b"))),
        ("a[] = c", Some(array(""))),
        ("a[b.c-d] = c", Some(array("b.c-d"))),
        (r#"a["b"] = c"#, Some(array("b"))),
        (r#"a["b]c;"] = c"#, Some(array("b]c;"))),
        ("a[${SPACED}] = c", Some(array("ex y"))),
        ("a[ b ] = c", Some(array("b"))),
        (r#"a[b" c "] = c"#, Some(array("b c "))),
        ("[ my site ]", Some(Statement::Section("my site".into()))),
        (r#"["my site"]"#, Some(Statement::Section("my site".into()))),
        ("[${SPACED}-1]", Some(Statement::Section("ex y-1".into()))),
        ("[${NOPE:-x}]", Some(Statement::Section("x".into()))),
        ("[a=b&c(d)|!~^]", Some(Statement::Section("a=b&c(d)|!~^".into()))),
        ("[yes]", Some(Statement::Section("yes".into()))),
        ("a['b c'] = c", Some(array("b c"))),
    ];
    for (line, expected) in table {
        assert_eq!(parse(line), Ok(expected), "{line}");
    }
}

#[test]
fn lines_that_are_refused() {
    let table = [
        (
            "a",
            "value is NULL for a ZEND_INI_PARSER_ENTRY 'a' has no '=', write 'name = value'",
        ),
        ("# comment", "comments start with ';'"),
        ("= c", "found '= c' where a name was expected"),
        ("\"a\" = b", "where a name was expected"),
        ("yes = c", "where a name was expected"),
        ("a|b = c", "where a name was expected"),
        ("{a} = b", "where a name was expected"),
        ("a[b", "allowed is 'a[key] = value'"),
        ("a[b]", "allowed is 'a[key] = value'"),
        ("a[b]c = d", "allowed is 'a[key] = value'"),
        ("a[b;c] = d", "allowed is 'a[key] = value'"),
        ("[www", "found '[www', allowed is '[name]' alone on its line"),
        ("[]", "allowed is '[name]'"),
        ("[\t]", "allowed is '[name]'"),
        ("[\"w]", "allowed is '[name]'"),
        ("[w\\w]", "allowed is '[name]'"),
        ("['w\"w']", "allowed is '[name]'"),
        ("[${w]", "allowed is '[name]'"),
        ("a['b] = c", "allowed is 'a[key] = value'"),
        ("[w;w]", "allowed is '[name]'"),
        // PHP reads an entry, and drops the text.
        ("[www] a = b", "alone on its line"),
        ("[www]x", "alone on its line"),
    ];
    for (line, expected) in table {
        let refused = parse(line).expect_err(line);
        assert!(refused.contains(expected), "{line}: {refused}");
    }
    let long = format!("a = {}", "x".repeat(64 * 1024));
    assert_eq!(parse(&long), Err("line is longer than 65536 bytes".to_owned()));
    assert_eq!(
        parse("a = \0"),
        Err("line contains a NUL byte; configuration files are text".to_owned())
    );
    let latin1 = parse_line(b"a = caf\xe9", &environment()).expect_err("not UTF-8");
    assert_eq!(latin1.to_string(), "line is not valid UTF-8 at byte 7");
    for comment in [&b"; caf\xe9"[..], b"a = b ; caf\xe9", b"[www] ; caf\xe9"] {
        assert!(
            parse_line(comment, &environment()).is_ok(),
            "comments may be in any encoding"
        );
    }
}
