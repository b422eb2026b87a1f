//! Documents parse, and say what they are to say, whatever other requests hold.

use proptest::prelude::*;
use quick_xml::events::Event;

use super::*;

/// The processes of an XML or HTML page as the texts of their elements.
fn rows(document: &str, row: &str, cell: &str) -> Vec<Vec<String>> {
    let mut reader = quick_xml::Reader::from_str(document);
    reader.config_mut().check_end_names = true;
    let (mut rows, mut depth, mut in_cell) = (Vec::new(), 0usize, false);
    loop {
        match reader.read_event().expect("well-formed") {
            Event::Start(start) => {
                depth += 1;
                if start.name().as_ref() == row {
                    rows.push(Vec::new());
                } else if let Some(row) = rows.last_mut()
                    && (cell.is_empty() || start.name().as_ref() == cell)
                {
                    row.push(String::new());
                    in_cell = true;
                }
            }
            Event::End(_) => {
                depth -= 1;
                in_cell = false;
            }
            Event::Text(text) if in_cell => {
                rows.last_mut()
                    .and_then(|r| r.last_mut())
                    .expect("a cell")
                    .push_str(&text);
            }
            Event::GeneralRef(reference) if in_cell => {
                let text = quick_xml::escape::resolve_predefined_entity(&reference).expect("predefined");
                rows.last_mut()
                    .and_then(|r| r.last_mut())
                    .expect("a cell")
                    .push_str(text);
            }
            Event::Eof => {
                assert_eq!(depth, 0, "an element is open at the end");
                return rows;
            }
            _ => {}
        }
    }
}

/// The `Char` of XML 1.0, section 2.2.
fn is_xml_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// What a reader is to see of a text.
fn as_markup_shows(text: &[u8]) -> String {
    let shown: String = text
        .utf8_chunks()
        .flat_map(|chunk| {
            let bad = (!chunk.invalid().is_empty()).then_some('\u{fffd}');
            chunk.valid().chars().chain(bad)
        })
        .map(|c| if is_xml_character(c) { c } else { '\u{fffd}' })
        .collect();
    if shown.is_empty() { "-".to_owned() } else { shown }
}

/// Bytes of all kinds, with more of those that matter than chance would give.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<char>().prop_map(|c| c.to_string().into_bytes()),
        prop::sample::select(vec![
            &b"<"[..],
            b"&",
            b"&amp;",
            b"]]>",
            b"\"",
            b"\\",
            b"/",
            b"\n",
            b"\0",
            b"\x1b",
            b"<!--",
            b"\xed\xa0\x80",
            b"\xef\xbf\xbe",
            b"</script>",
            b"#x0;",
        ])
        .prop_map(<[u8]>::to_vec),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn documents_parse_whatever_they_hold(
        (pool, method, uri, user, script) in (any::<String>(), bytes(), bytes(), bytes(), bytes()),
        query in bytes(),
        (stage, numbers) in (0u64..9, any::<[u64; 5]>()),
    ) {
        let mut figures = figures(vec![ProcessStatus {
            pid: 1,
            stage,
            start_unix_s: START,
            requests: numbers[0],
            duration_us: numbers[1],
            method: method.clone(),
            uri: uri.clone(),
            query: query.clone(),
            content_length: numbers[2],
            user: user.clone(),
            script: script.clone(),
            last_cpu_ns: numbers[3],
            last_duration_ns: numbers[4],
            last_memory: numbers[0],
        }, idle()]);
        figures.pool.pool = pool;
        let whole = if uri.is_empty() {
            Vec::new()
        } else if query.is_empty() {
            uri
        } else {
            [&uri[..], b"?", &query].concat()
        };
        let texts = [&method, &whole, &user, &script];

        let xml = page("xml&full", &figures);
        prop_assert!(xml.chars().all(is_xml_character));
        let html = page("html&full", &figures);
        prop_assert!(html.chars().all(is_xml_character));
        let of_html = rows(&html, "tr", "td");
        let of_html = &of_html[of_html.len() - 2..];
        for rows in [&rows(&xml, "process", "")[..], of_html] {
            prop_assert_eq!((rows.len(), rows[0].len(), rows[1].len()), (2, 13, 13));
            for (text, column) in texts.iter().zip([6, 7, 9, 10]) {
                prop_assert_eq!(&rows[0][column], &as_markup_shows(text));
            }
        }

        let json: serde_json::Value = serde_json::from_str(&page("json&full", &figures)).expect("JSON");
        prop_assert_eq!(json["pool"].as_str(), Some(&figures.pool.pool[..]));
        let process = &json["processes"][0];
        for (text, key) in texts.iter().zip(["request method", "request uri", "user", "script"]) {
            let valid: String = text.utf8_chunks().map(|chunk| chunk.valid()).collect();
            let expected = if text.is_empty() { "-" } else { &valid[..] };
            prop_assert_eq!(process[key].as_str(), Some(expected));
        }
        prop_assert_eq!(process["request duration"].as_u64(), Some(numbers[1]));
        prop_assert!(process["last request cpu"].as_f64().is_some_and(f64::is_finite));

        let pool_lines = page("", &figures).lines().count();
        prop_assert_eq!(pool_lines, 14);
        prop_assert_eq!(page("full", &figures).lines().count(), 14 + 2 * 15);
        prop_assert_eq!(page("openmetrics", &figures).lines().count(), 12 * 3 + 1);
    }

    #[test]
    fn any_query_can_be_asked(query in bytes()) {
        Asked::read(&query);
    }
}
