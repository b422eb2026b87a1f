use glasspool_abi::PoolId;
use glasspool_abi::control::SlowStop;
use glasspool_abi::trace::sampling::Glob;
use glasspool_otel::wait_span::WaitSpan;
use glasspool_probes::TargetAddr;

use super::*;
use crate::observer::sighting::stacktrace;

fn patterns(texts: &[&str]) -> Arc<[ControllerPattern]> {
    let pattern = |text: &&str| ControllerPattern {
        class: Glob::of_names(text.trim_start_matches('!')).expect("a pattern"),
        excluded: text.starts_with('!'),
    };
    texts.iter().map(pattern).collect()
}

/// A stack, innermost call first.
fn frames(calls: &[&str]) -> Vec<Frame> {
    let frame = |call: &&str| {
        let (class, function) = call
            .rsplit_once("::")
            .map_or((None, *call), |(c, f)| (Some(c), f));
        Frame {
            addr: TargetAddr(0),
            kind: if function == "{main}" {
                Kind::Main
            } else {
                Kind::Function
            },
            function: function.to_owned(),
            class: class.map(str::to_owned),
            on_object: false,
            file: Some("/srv/a: b.php".to_owned()),
            line: Some(3),
            line_exact: true,
            internal: false,
            handler: None,
            arguments: None,
        }
    };
    calls.iter().map(frame).collect()
}

/// By frames and, which must be the same, by text.
fn of(controllers: &[ControllerPattern], calls: &[&str]) -> Option<String> {
    let frames = frames(calls);
    let route = of_frames(controllers, &frames);
    assert_eq!(
        of_text(controllers, &stacktrace(&frames, usize::MAX)),
        route,
        "{calls:?}"
    );
    route
}

#[test]
fn the_outermost_method_of_a_class_that_handles_requests_is_the_route() {
    let usual = patterns(&[r"!Illuminate\*", "*Controller", "*Action"]);
    let cases: [(&[&str], Option<&str>); 9] = [
        (
            &[
                "PDO::query",
                r"App\AuditController::log",
                r"App\Http\CheckoutController::show",
                r"Illuminate\Routing\Controller::callAction",
                r"App\Http\CheckoutController::__construct",
                r"App\Http\ParentController::App\Http\{closure}",
                r"Illuminate\Foundation\Http\Kernel::handle",
                "{main}",
            ],
            Some(r"App\Http\CheckoutController::show"),
        ),
        (&["PayAction::__invoke", "{main}"], Some("PayAction::__invoke")),
        (&[r"App\CheckoutController::show"], None),
        (&[r"App\CheckoutController::show", "include"], None),
        (&["usleep", "controller", "{main}"], None),
        (&[r"App\Controller\Helper::show", "{main}"], None),
        (&["AController::a b", "{main}"], None),
        (&["{main}"], None),
        (&[], None),
    ];
    for (calls, expected) in cases {
        assert_eq!(of(&usual, calls).as_deref(), expected, "{calls:?}");
    }
    let long = format!("{}Controller::show", "a".repeat(200));
    assert_eq!(of(&usual, &[&long, "{main}"]), None);
    assert_eq!(of(&[], &["AController::show", "{main}"]), None);
}

fn pool(controllers: &[ControllerPattern]) -> PoolView {
    PoolView {
        pool: PoolId(1),
        name: "www".to_owned(),
        slow_after: None,
        slow_depth: 20,
        slow_json: false,
        slow_samples: 1,
        slow_stop: SlowStop::Never,
        still_running: false,
        controllers: controllers.to_vec(),
    }
}

fn waits(calls: &[&str]) -> RequestWaits {
    let span = |calls: &[&str]| WaitSpan {
        stacktrace: stacktrace(&frames(calls), usize::MAX).into(),
        ..WaitSpan::default()
    };
    RequestWaits {
        spans: vec![WaitSpan::default(), span(calls)],
        ..RequestWaits::default()
    }
}

fn look(controller: &str) -> SlowEvent {
    SlowEvent {
        controller: Some(controller.to_owned()),
        ..SlowEvent::default()
    }
}

#[test]
fn looks_and_waits_name_a_request_and_only_where_that_is_wanted() {
    let mut routes = Routes::default();
    let (seen, waited) = (look("A::b"), waits(&["usleep", "CController::d", "{main}"]));
    let nothing = RequestWaits::default();
    assert_eq!(routes.learn("www", std::slice::from_ref(&seen), &waited), None);
    routes.follow(&pool(&patterns(&["*Controller"])));
    let mut learn = |looks: &[SlowEvent], waits: &RequestWaits| routes.learn("www", looks, waits);
    assert_eq!(learn(&[], &nothing), None);
    assert_eq!(learn(&[], &waited).as_deref(), Some("CController::d"));
    let looks = [SlowEvent::default(), seen];
    assert_eq!(learn(&looks, &waited).as_deref(), Some("A::b"));
    assert_eq!(routes.learn("api", &looks, &waited), None);
    routes.follow(&pool(&[]));
    assert_eq!(routes.learn("www", &looks, &waited), None);
}

#[test]
fn a_worker_that_makes_up_names_gets_so_many_and_no_more() {
    let (mut routes, nothing) = (Routes::default(), RequestWaits::default());
    let wanted = pool(&patterns(&["*"]));
    routes.follow(&wanted);
    let mut learn = |name: String| {
        // A reload of the configuration forgets none.
        routes.follow(&wanted);
        routes.learn("www", &[look(&name)], &nothing)
    };
    for number in 0..MOST_ROUTES {
        assert!(learn(format!("A::m{number}")).is_some(), "{number}");
    }
    assert_eq!(learn("A::one_more".to_owned()), None);
    assert_eq!(learn("A::m7".to_owned()).as_deref(), Some("A::m7"));
}
