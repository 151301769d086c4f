//! `/api/v1/openapi.json`: the description of the API, kept by hand and checked against the routes by a test.

use axum::http::header;
use axum::response::IntoResponse;

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use super::DOCUMENT;

    #[test]
    fn every_route_of_the_api_is_described_and_nothing_else() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let mut described: Vec<String> = Vec::new();
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                assert!(operation["responses"].is_object(), "{method} {path} has no responses");
                described.push(format!("{method} {path}"));
            }
        }
        let console = |path: &str| path == "/" || path.starts_with("/console");
        let mut served: Vec<String> = super::super::routes()
            .iter()
            .filter(|(path, _, _)| !console(path))
            .flat_map(|(path, methods, _)| methods.iter().map(move |method| format!("{method} {path}")))
            .collect();
        described.sort();
        served.sort();
        assert_eq!(described, served);
    }
}
