//! What comes from outside, as JSON or in a query: what is wrong with it is said by the name of its field and with what is allowed, not in the words of
//! the library that reads it. Pure.

use std::error::Error as _;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::Uri;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use holdfast_wire::store::Page;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;

use super::problem::{Kind, Problem};

/// Of a page that the store did not give out.
pub const NO_PAGE: &str = "page: give it as the former answer's `next`";

/// Why JSON is not what it is to be.
#[derive(Debug)]
pub enum Unreadable {
    /// It is not JSON.
    Malformed(String),
    /// It is not what is asked for.
    Invalid(String),
}

impl From<Unreadable> for Problem {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Malformed(why) => Self::new(Kind::Malformed, why),
            Unreadable::Invalid(why) => Self::new(Kind::Invalid, why),
        }
    }
}

/// JSON as what it is to be. Text that is not JSON is told from JSON that is not what is asked for.
pub fn json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(text).map_err(|error| {
        if let Err(error) = std::str::from_utf8(text) {
            let byte = error.valid_up_to() + 1;
            return Unreadable::Malformed(format!("it must be UTF-8, and is not from its byte {byte} on"));
        }
        // To keep track of the field costs time, so it is looked for only now.
        let again = &mut serde_json::Deserializer::from_slice(text);
        let found = serde_path_to_error::deserialize::<_, T>(again).err();
        let field = found.map(|found| found.path().to_string()).filter(|path| path != "." && path != "?");
        refuse(field.as_deref(), &error, || serde_json::from_slice::<IgnoredAny>(text).is_ok())
    })
}

fn refuse(field: Option<&str>, error: &serde_json::Error, is_json: impl Fn() -> bool) -> Unreadable {
    let (line, column) = (error.line(), error.column());
    let said = error.to_string();
    let said = said.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&said);
    let of =
        field.filter(|field| !said.contains(field)).map_or_else(String::new, |field| format!("{field}: "));
    match error.classify() {
        Category::Data => Unreadable::Invalid(format!("{of}{}", wanted(said))),
        Category::Eof | Category::Io if column == 0 => {
            Unreadable::Malformed("there is nothing in it".to_owned())
        }
        Category::Eof | Category::Io => {
            Unreadable::Malformed(format!("{of}it ends before a text, a list or an object is closed"))
        }
        // A choice that is not written as one is refused in the midst of it.
        Category::Syntax if is_json() && said.starts_with("expected") => {
            Unreadable::Invalid(format!("{of}it is JSON, and not what is asked for here"))
        }
        Category::Syntax => {
            Unreadable::Malformed(format!("{of}no JSON at line {line}, column {column}: {}", broken(said)))
        }
    }
}

/// What stands there and what should.
fn wanted(said: &str) -> String {
    let stripped = ["invalid type: ", "invalid value: ", "unknown variant "]
        .iter()
        .find_map(|kind| said.strip_prefix(kind));
    match stripped.and_then(|both| both.split_once(", expected ")) {
        Some((given, wanted)) => format!("must be {wanted}, not {given}"),
        None => said.to_owned(),
    }
}

fn broken(said: &str) -> &str {
    if ["escape", "surrogate", "unicode code point"].iter().any(|word| said.contains(word)) {
        return "an escape must be one of JSON's; \\u has four hexadecimal digits, and surrogates come in pairs";
    }
    if said == "expected ident" { "must be true, false or null" } else { said }
}

/// The fields of a query.
pub fn query<T>(given: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    let refuse = |rejected: QueryRejection| {
        // The rejection says first that it is one.
        let why = rejected.source().map_or_else(|| rejected.to_string(), ToString::to_string);
        Problem::new(Kind::Invalid, format!("the query: {why}"))
    };
    given.map(|Query(fields)| fields).map_err(refuse)
}

/// Of an address that takes none.
pub fn no_query(address: &Uri) -> Result<(), Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    query(Query::<Nothing>::try_from_uri(address)).map(|Nothing {}| ())
}

/// How many a page may have: 1 to `max`.
pub fn limit(given: Option<&str>, unless_given: u32, max: u32) -> Result<u32, String> {
    let Some(given) = given else { return Ok(unless_given) };
    let limit = given.parse().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| format!("limit = {given:?}: must be 1 to {max}"))
}

/// Where a page begins; none: at the first.
pub fn page(given: Option<&str>) -> Result<Option<Page>, String> {
    let page = given.map(|page| BASE64_URL_SAFE_NO_PAD.decode(page)).transpose();
    page.map(|page| page.map(Into::into)).map_err(|_| NO_PAGE.to_owned())
}

/// A page's name, as [`page`] reads it.
pub fn name_page(page: &Page) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(page)
}

#[cfg(test)]
mod tests {
    use holdfast_wire::presence::DeviceRequest;

    use super::*;

    #[test]
    fn text_that_is_no_json_is_told_from_json_that_is_something_else() {
        let read = |text: &str| json::<DeviceRequest>(text.as_bytes());
        assert!(read(r#"{"find":"d"}"#).is_ok());
        for malformed in ["", "{", r#"{"find":"d"#, r#"{"find":"d"} x"#, "find"] {
            assert!(matches!(read(malformed), Err(Unreadable::Malformed(_))), "{malformed}");
        }
        for invalid in
            ["{}", "[]", "1", r#"{"find":1}"#, r#"{"end":"d"}"#, r#"{"find":"a","disconnect":"a"}"#]
        {
            assert!(matches!(read(invalid), Err(Unreadable::Invalid(_))), "{invalid}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_told_from_escapes_that_are_none() {
        let why = |text: &[u8]| match json::<DeviceRequest>(text) {
            Err(Unreadable::Malformed(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(b"{\"find\":\"\xff\"}"), "it must be UTF-8, and is not from its byte 10 on");
        for escape in [&br#"{"find":"\xff"}"#[..], br#"{"find":"\ud800"}"#] {
            assert!(why(escape).contains("an escape must be"), "{}", why(escape));
        }
    }

    #[test]
    fn an_address_that_takes_no_query_says_so() {
        for well in ["/", "/a?", "/a"] {
            assert_eq!(no_query(&well.parse().unwrap()), Ok(()), "{well}");
        }
        let refused = no_query(&"/a?x=1".parse().unwrap()).unwrap_err();
        assert!(format!("{refused:?}").contains("unknown field `x`, there are no fields"), "{refused:?}");
    }
}
