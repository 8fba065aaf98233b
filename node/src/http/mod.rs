//! The HTTP surface of a node: one route per file, refusals as problem documents, a correlation id on
//! everything.

pub(crate) mod access;
pub(crate) mod agents;
mod auth;
pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod conditional;
pub(crate) mod correlation;
pub(crate) mod handshakes;
mod naming;
pub(crate) mod page;
mod patient;
mod peers;
pub(crate) mod problem;
mod routes;
pub(crate) mod server;
mod stream;
pub(crate) mod tasks;
#[cfg(test)]
pub(crate) mod testing;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use hiveops_proto::control::ControlView;
use hiveops_proto::path::{self, Endpoint};
use http::StatusCode;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use client::Proxies;

use crate::app::App;
use crate::auth::Permission;
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;
use crate::tls::Certificates;

/// How long a request may take from its head to its answer: well beyond the slowest call of the bus, and
/// the end of a body that never comes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the accept loop must know.
#[derive(Clone)]
pub(crate) struct Accepting {
    /// Follows the limits in force.
    pub(crate) head_timeout: watch::Receiver<Duration>,
    /// The limits in force.
    pub(crate) views: watch::Receiver<Arc<ControlView>>,
    pub(crate) proxies: Arc<Proxies>,
    /// By what certificate hands are shaken; none where connections are plain.
    pub(crate) certificates: Option<Certificates>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
}

/// What each listener serves.
pub(crate) struct Routers {
    pub(crate) public: Router,
    /// None when the public one serves it all.
    pub(crate) admin: Option<Router>,
}

/// Every route of the node, on one listener or on two.
pub(crate) fn routers(app: &Arc<App>) -> Routers {
    let (public, admin) = (public(app), probes().with_state(Arc::clone(app)).merge(admin(app)));
    let (public, admin) = match app.config.admin_listen {
        Some(_) => (public.merge(probes().with_state(Arc::clone(app))), Some(admin.merge(figures(app)))),
        None => (public.merge(admin), None),
    };
    Routers { public: guarded(public, app.clock), admin: admin.map(|admin| guarded(admin, app.clock)) }
}

/// How the node is: whoever can reach a listener may ask.
fn probes() -> Router<Arc<App>> {
    Router::new()
        .route(path::HEALTH, get(routes::health::overall))
        .route(path::LIVEZ, get(routes::health::livez))
        .route(path::READYZ, get(routes::health::readyz))
}

/// What is for those who run the node, and can move to a listener that only they reach.
fn admin(app: &Arc<App>) -> Router {
    let needs = |permission| {
        let state = (Arc::clone(app), permission);
        axum::middleware::from_fn_with_state(state, access::permitted)
    };
    let metrics = Router::new()
        .route(path::WS_METRICS, get(routes::metrics::show))
        .route(path::METRICS, get(routes::metrics::show));
    Router::new()
        .route(path::WS_BROADCAST, post(routes::broadcast::publish).route_layer(needs(Permission::Broadcast)))
        .route(path::WS_DISCONNECT, post(routes::disconnect::end).route_layer(needs(Permission::Disconnect)))
        .route(path::AUDIT, get(routes::audit::show).route_layer(needs(Permission::Trace)))
        .route(path::WS_DRAIN, post(routes::drain::begin).route_layer(needs(Permission::Drain)))
        .route(path::TRACE, get(routes::trace::show).route_layer(needs(Permission::Trace)))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(app), access::required))
        .merge(metrics)
        .with_state(Arc::clone(app))
}

/// Who watches a node by its admin listener wants to know whom it sees, too. The public one has this among others.
fn figures(app: &Arc<App>) -> Router {
    Router::new()
        .route(path::WS_STATS, get(routes::stats::show))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(app), access::required))
        .with_state(Arc::clone(app))
}

fn public(app: &Arc<App>) -> Router {
    let open = Router::new()
        .route("/", get(routes::tail::show))
        .route("/tail/{file}", get(routes::tail::file))
        .route(path::WS_SCHEMA, get(routes::documents::schema))
        .route(path::WS_CONTRACT, get(routes::contract::show))
        .route(path::WS_LIMITS, get(routes::limits::show))
        .route(path::JWKS, get(routes::jwks::show));
    let closed = Router::new()
        .route(path::WS_HEALTH, get(routes::health::sockets))
        .route(path::WS_STATS, get(routes::stats::show))
        .route(path::OPENAPI, get(routes::documents::openapi))
        .route(path::ASYNCAPI, get(routes::documents::asyncapi))
        .route(path::VERSION_MISMATCH, post(routes::telemetry::version_mismatch))
        .merge(auth::tickets())
        .with_state(Arc::clone(app));
    let board = agents::router()
        .merge(tasks::router())
        .with_state(Arc::clone(&app.board))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(app), access::writes));
    let closed = closed.merge(board);
    let closed = closed.route_layer(axum::middleware::from_fn_with_state(Arc::clone(app), access::required));
    let mut sockets = Router::new();
    for endpoint in Endpoint::ALL {
        sockets = sockets.route(endpoint.path(), get(upgrade::open).with_state((Arc::clone(app), *endpoint)));
    }
    #[cfg(feature = "echo-endpoint")]
    let sockets = sockets.route("/echo", get(upgrade::echo).with_state(Arc::clone(app)));
    let open = open.merge(auth::router()).with_state(Arc::clone(app));
    open.merge(closed).merge(sockets)
}

/// What holds for every route: a deadline, an answer after a panic, a correlation id.
fn guarded(router: Router, clock: Clock) -> Router {
    let deadline = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT);
    correlation::layered(router.layer(deadline).layer(CatchPanicLayer::new()), clock)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::routing::post;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_given_up_with_a_problem() {
        let route = post(|_: body::RawObject| async { "stored" });
        let router = guarded(Router::new().route("/", route), Clock::start());
        let never = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        let request = Request::post("/").body(Body::from_stream(never)).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(response.headers()[http::header::CONTENT_TYPE], problem::PROBLEM_JSON);
    }
}
