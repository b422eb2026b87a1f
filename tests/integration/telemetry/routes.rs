//! Requests that are called by the method that handles them.

use serde_json::Value;

use super::{Plan, Stand, collector, is_server, scratch, to};
use crate::collector::text;
use crate::waits_spans::Watched;

/// Past its slow limit in a method that a router of a framework calls.
const CHECKOUT: (&str, &str) = (
    "checkout.php",
    "<?php
namespace Laminas {
    class FrontController { function dispatch($to) { return $to->show(); } }
}
namespace App {
    class Mailer { function send() { usleep(1500000); return 'sent'; } }
    class CheckoutController { function show() { return (new Mailer)->send(); } }
}
namespace {
    echo (new Laminas\\FrontController)->dispatch(new App\\CheckoutController);
}
",
);
/// None of its classes handles requests.
const PLAIN: (&str, &str) = (
    "plain.php",
    "<?php class PlainPage { function show() { usleep(300000); return 'plain'; } }\necho (new PlainPage)->show();",
);
const SLOW: &str = "[slow]\nafter = \"100ms\"\nsamples = 1\n";

/// The spans of requests for `checkout.php` and `plain.php`, with this configuration.
fn spans(overlay: &str) -> Option<[Value; 2]> {
    let scratch = scratch();
    let collector = collector(&scratch);
    let plan = Plan {
        scripts: &[CHECKOUT, PLAIN],
        overlay: &format!("{SLOW}{overlay}"),
        ..Plan::default()
    };
    let stand = Stand::start(&plan, &to(&collector))?;
    assert_eq!(stand.run("checkout.php"), "sent");
    assert_eq!(stand.run("plain.php"), "plain");
    stand.finish();
    let spans = collector.spans();
    let of = |script: &str| {
        let mut spans = spans.iter().filter(|span| is_server(span));
        let found = spans.find(|span| text(span, "php.script").is_some_and(|path| path.ends_with(script)));
        found
            .unwrap_or_else(|| panic!("no span of {script}: {spans:#?}"))
            .clone()
    };
    Some([of("/checkout.php"), of("/plain.php")])
}

#[test]
fn a_slow_request_is_called_by_its_controller_where_that_is_wanted() {
    let Some([checkout, plain]) = spans("[trace]\nroute_from_controller = true\n") else {
        return;
    };
    let route = r"App\CheckoutController::show";
    assert_eq!(text(&checkout, "http.route"), Some(route), "{checkout:#}");
    assert_eq!(checkout["name"], format!("GET {route}"));
    assert_eq!(
        (text(&plain, "http.route"), &plain["name"]),
        (None, &Value::from("GET"))
    );

    for (overlay, expected) in [
        ("", None),
        (
            "[trace]\nroute_from_controller = true\n[pool.www.trace]\nroute_from_controller = false\n",
            None,
        ),
        (
            "[trace]\nroute_from_controller = true\n[[trace.route]]\npath = \"/*\"\ntemplate = \"/all\"\n",
            Some("/all"),
        ),
        (
            "[trace]\nroute_from_controller = ['*\\FrontController']\n",
            Some(r"Laminas\FrontController::dispatch"),
        ),
    ] {
        let Some([checkout, _]) = spans(overlay) else {
            return;
        };
        assert_eq!(text(&checkout, "http.route"), expected, "{overlay}: {checkout:#}");
    }
}

#[test]
fn a_request_that_waits_is_called_by_its_controller_too() {
    let script = "<?php\nclass CheckoutController { function show() { usleep(50000); } }\n(new CheckoutController)->show();\n";
    let toml = "[trace]\nroute_from_controller = true\n";
    let Some(watched) = Watched::with(toml, "", &[("checkout.php", script)]) else {
        return;
    };
    watched.stand.ask("checkout.php").join().expect("ends");
    let request = watched.request("/checkout");
    let route = text(&request, "http.route");
    assert_eq!(route, Some("CheckoutController::show"), "{request:#}");
}
