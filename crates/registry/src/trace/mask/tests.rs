//! What is shown and what is not, row by row.

use super::*;

#[track_caller]
fn check_url(text: &str, foreign: bool, shown: &str) {
    let url = Url::parse(text).expect("address");
    assert_eq!(super::url(&url, foreign), shown);
}

#[test]
fn addresses() {
    check_url(
        "https://r.example.com/v2/shop/web/tags/list?n=2&last=b&ns=docker.io",
        false,
        "https://r.example.com/v2/shop/web/tags/list?n=2&last=b&ns=docker.io",
    );
    check_url(
        "https://alice:s3cret@r.example.com:5000/v2/",
        false,
        "https://***@r.example.com:5000/v2/",
    );
    check_url(
        "https://t0ken@r.example.com/",
        false,
        "https://***@r.example.com/",
    );
    // An upload's state is its registry's affair; its digest is ours.
    check_url(
        "http://r.example.com/v2/a/blobs/uploads/1?_state=abc&digest=sha256%3A12",
        false,
        "http://r.example.com/v2/a/blobs/uploads/1?_state=***&digest=sha256%3A12",
    );
    check_url(
        "http://r.example.com/?t0ken",
        false,
        "http://r.example.com/?***",
    );
    // Signed, and everything in it may be what counts.
    check_url(
        "https://s.example.com/a/b?X-Amz-Signature=abc&n=2",
        true,
        "https://s.example.com/a/b?***",
    );
    check_url(
        "https://s.example.com/a#t0ken",
        true,
        "https://s.example.com/a",
    );
}

#[track_caller]
fn check_header(name: &'static str, value: &str, shown: &str) {
    let value = HeaderValue::from_str(value).expect("value");
    assert_eq!(header(&HeaderName::from_static(name), &value), shown);
}

#[test]
fn headers() {
    check_header("authorization", "Basic YWxpY2U6czNjcmV0", "Basic ***");
    check_header("authorization", "Bearer ey.J0.eXA", "Bearer ***");
    check_header("authorization", "t0ken", "***");
    check_header("authorization", "a:b t0ken", "***");
    check_header("proxy-authorization", "Basic YWxpY2U6czNjcmV0", "Basic ***");
    for name in [
        "cookie",
        "set-cookie",
        "x-api-key",
        "x-auth-token",
        "x-amz-security-token",
        "x-registry-auth",
        "authentication-info",
    ] {
        check_header(name, "t0ken", "***");
    }
    check_header("accept", "application/json, */*", "application/json, */*");
    check_header("content-range", "bytes 5-9/10", "bytes 5-9/10");
    check_header(
        "www-authenticate",
        r#"Bearer realm="https://u:p@a.example.com/token?key=abc",service="r",scope="repository:a:pull""#,
        r#"Bearer realm="https://***@a.example.com/token?key=***",service="r",scope="repository:a:pull""#,
    );
    check_header("www-authenticate", "Negotiate YII=", "Negotiate ***");
    check_header(
        "location",
        "https://s.example.com/a?sig=abc&n=2",
        "https://s.example.com/a?***",
    );
    check_header(
        "location",
        "/v2/a/blobs/uploads/1?_state=abc",
        "/v2/a/blobs/uploads/1?***",
    );
    check_header("location", "//u:p@s.example.com/a", "//***@s.example.com/a");
    check_header(
        "link",
        r#"</v2/a/tags/list?last=b&n=2&sig=abc>; rel="next""#,
        r#"</v2/a/tags/list?last=b&n=2&sig=***>; rel="next""#,
    );
    // What a user configured is marked.
    let mut value = HeaderValue::from_static("t0ken");
    value.set_sensitive(true);
    assert_eq!(header(&HeaderName::from_static("x-own"), &value), MASK);
    let wild = HeaderValue::from_bytes(b"t\xffken").expect("value");
    assert_eq!(header(&HeaderName::from_static("server"), &wild), MASK);
}

#[test]
fn texts() {
    for (said, shown) in [
        (
            "see https://u:p@a.example.com/x?k=v&n=2, or <http://b.example.com?q=1>",
            "see https://***@a.example.com/x?k=***&n=2, or <http://b.example.com?q=***>",
        ),
        ("really? yes", "really? yes"),
        ("://", "://"),
        ("a@b://c@d", "a@b://***@d"),
    ] {
        assert_eq!(text(said), shown);
    }
}

#[test]
fn documents() {
    // docs/spec/auth/token.md, "Token Response Fields", and oauth.md.
    let answer = br#"{"token":"abc","access_token":"def","expires_in":60,"refresh_token":"ghi"}"#;
    let shown: Value = serde_json::from_str(&json(answer).expect("JSON")).expect("JSON");
    let expected = serde_json::json!({
        "token": "***", "access_token": "***", "expires_in": 60, "refresh_token": "***",
    });
    assert_eq!(shown, expected);
    let nested = br#"{"errors":[{"detail":{"Auth":{"x":1}}}],"author":"me"}"#;
    let shown: Value = serde_json::from_str(&json(nested).expect("JSON")).expect("JSON");
    let expected = serde_json::json!({
        "errors": [{"detail": {"Auth": "***"}}], "author": "me",
    });
    assert_eq!(shown, expected);
    // Nothing is secret in it, and so it stays as it is.
    let manifest = "{ \"schemaVersion\": 2,\n  \"layers\": [] }";
    assert_eq!(json(manifest.as_bytes()).as_deref(), Some(manifest));
    assert_eq!(json(b"{\"token\":\"abc"), None);
}

#[test]
fn forms() {
    let body =
        b"grant_type=password&username=alice&password=p4%2Bss&service=s&refresh_token=abc&x=y";
    assert_eq!(
        form(body),
        "grant_type=password&username=alice&password=***&service=s&refresh_token=***&x=***"
    );
    let mut secrets = Vec::new();
    secrets_of_form(body, |secret| secrets.push(secret.to_owned()));
    assert_eq!(secrets, ["p4+ss", "p4%2Bss", "abc", "abc", "y", "y"]);
}

#[test]
fn secrets_of_a_request() {
    let mut own = HeaderValue::from_static("k3y");
    own.set_sensitive(true);
    let headers = HeaderMap::from_iter([
        (header::ACCEPT, HeaderValue::from_static("a b")),
        // RFC 7617, section 2.
        (
            header::AUTHORIZATION,
            HeaderValue::from_static("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ),
        (HeaderName::from_static("x-own"), own),
    ]);
    let mut told = Vec::new();
    secrets(&headers, |secret| told.push(secret.to_owned()));
    told.sort();
    assert_eq!(told, ["QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "k3y", "open sesame"]);
}
