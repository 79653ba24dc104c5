//! What is asked of AWS, and what its answers mean. A value is nowhere but in what is returned.

use baton_core::run::secrets::{Aws, Secret};
use serde_json::{Value, json};

use super::{Found, SecretError};

/// How much of what AWS says is passed on, in characters.
const WORDS_MAX: usize = 300;

/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>
pub(super) fn ask_secrets_manager(name: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => json!({ "SecretId": name, "VersionId": version }),
        None => json!({ "SecretId": name }),
    }
    .to_string()
}

pub(super) fn secrets_manager(answer: &[u8]) -> Result<Found, SecretError> {
    let mut answer = object(answer)?;
    let version = answer.get("VersionId").and_then(Value::as_str).map(str::to_owned);
    match answer.get_mut("SecretString").map(Value::take) {
        Some(Value::String(text)) => Ok(Found { text: Secret::new(text), version }),
        Some(_) | None => Err(refused("it is binary, and a variable is text")),
    }
}

/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>
pub(super) fn ask_ssm(name: &str, version: Option<&str>) -> Result<String, SecretError> {
    let name = match version {
        // Behind the name, anything else would be a label, or a part of another name.
        Some(version) if version.is_empty() || version.contains(|c: char| !c.is_ascii_digit()) => {
            return Err(refused("its version in the release is no number: push the release again"));
        }
        Some(version) => format!("{name}:{version}"),
        None => name.to_owned(),
    };
    Ok(json!({ "Name": name, "WithDecryption": true }).to_string())
}

pub(super) fn ssm(answer: &[u8]) -> Result<Found, SecretError> {
    let mut answer = object(answer)?;
    let version = answer["Parameter"]["Version"].as_u64().map(|version| version.to_string());
    match answer["Parameter"]["Value"].take() {
        Value::String(text) => Ok(Found { text: Secret::new(text), version }),
        _ => Err(refused("the parameter has no text")),
    }
}

/// The text of an object.
pub(super) fn text(bytes: Vec<u8>) -> Result<Secret, SecretError> {
    String::from_utf8(bytes).map(Secret::new).map_err(|_| refused("it is not text in UTF-8"))
}

/// What a reference means of a text: all of it, or one member of the JSON object that it is.
pub(super) fn value(aws: &Aws, text: Secret) -> Result<Secret, SecretError> {
    let Some(key) = &aws.key else { return Ok(text) };
    // What the reader of JSON says of a mistake may quote the text.
    let mut all: Value = serde_json::from_str(text.reveal())
        .map_err(|_| refused("it is no JSON, so nothing in it has a name"))?;
    match all.get_mut(key).map(Value::take) {
        None | Some(Value::Null) => Err(refused(&format!("the JSON object there has no {key:?}"))),
        Some(Value::String(text)) => Ok(Secret::new(text)),
        // Of others, what is read is not what was written.
        Some(Value::Number(number)) if !number.is_f64() => Ok(Secret::new(number.to_string())),
        Some(Value::Bool(on)) => Ok(Secret::new(on.to_string())),
        Some(Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(refused(&format!("{key:?} in it is no text, whole number, true or false")))
        }
    }
}

/// What an error of AWS means: its kind and its words, which name who asked for what.
pub(super) fn refusal(service: &str, status: u16, body: &[u8]) -> SecretError {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let kind = answer["__type"].as_str().unwrap_or_default();
    let kind = kind.rsplit('#').next().unwrap_or_default();
    let said = answer["message"].as_str().or(answer["Message"].as_str()).unwrap_or_default();
    let said: String = said.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    let text = format!("{service} answers {status} {kind} {said}").trim_end().to_owned();
    let passes = status >= 500 || status == 429 || kind.contains("Throttling");
    if passes { SecretError::Unavailable(text) } else { SecretError::Refused(text) }
}

fn object(answer: &[u8]) -> Result<Value, SecretError> {
    serde_json::from_slice(answer).map_err(|_| SecretError::Unavailable("the answer is no JSON".to_owned()))
}

fn refused(why: &str) -> SecretError {
    SecretError::Refused(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aws(text: &str) -> Aws {
        text.parse::<baton_core::run::secrets::Reference>().unwrap().aws().unwrap().clone()
    }

    #[test]
    fn p43_the_version_of_a_parameter_leads_to_no_other_one() {
        assert!(ask_ssm("/a", None).unwrap().contains("\"/a\""));
        assert!(ask_ssm("/a", Some("12")).unwrap().contains("\"/a:12\""));
        for version in ["", "label", "1:2", "-1", "1/../b", "\u{661}"] {
            assert!(ask_ssm("/a", Some(version)).is_err(), "{version}");
        }
    }

    #[test]
    fn p43_what_is_wrong_with_a_value_is_told_without_it() {
        let text = r#"{"password":"hunter2","port":5432,"tls":true,"none":null,"list":["hunter2"],"in":{"a":"hunter2"}}"#;
        let read = |reference: &str, text: &str| value(&aws(reference), Secret::new(text.to_owned()));
        for (key, expected) in [("password", "hunter2"), ("port", "5432"), ("tls", "true")] {
            assert_eq!(read(&format!("aws-ssm:x#{key}"), text).unwrap().reveal(), expected);
        }
        assert_eq!(read("aws-ssm:x", "hunter2").unwrap().reveal(), "hunter2");
        for (key, text, why) in [
            ("absent", text, "has no \"absent\""),
            ("none", text, "has no \"none\""),
            ("list", text, "\"list\" in it is no text"),
            ("in", text, "\"in\" in it is no text"),
            ("long", r#"{"long":27182818284590452353602874}"#, "no text, whole number"),
            ("part", r#"{"part":2.7182}"#, "no text, whole number"),
            ("password", "\"hunter2", "no JSON"),
            ("password", "hunter2", "no JSON"),
            ("password", "\"hunter2\"", "has no \"password\""),
        ] {
            let error = read(&format!("aws-ssm:x#{key}"), text).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains(why) || told.contains(&why.replace('"', "\\\"")), "{told}");
            assert!(!told.contains("hunter2") && !told.contains("7182"), "{told}");
        }
        let found = secrets_manager(br#"{"SecretString":"hunter2","VersionId":"v1"}"#).unwrap();
        assert_eq!((found.text.reveal(), found.version.as_deref()), ("hunter2", Some("v1")));
        assert!(!format!("{found:?}").contains("hunter2"));
        assert!(secrets_manager(br#"{"SecretBinary":"aHVudGVyMg=="}"#).is_err());
        let found = ssm(br#"{"Parameter":{"Value":"hunter2","Version":3}}"#).unwrap();
        assert_eq!((found.text.reveal(), found.version.as_deref()), ("hunter2", Some("3")));
        assert!(super::text(vec![0xff]).is_err());
    }

    #[test]
    fn what_passes_is_told_apart_from_what_does_not() {
        for (status, body, passes, words) in [
            (
                400,
                r#"{"__type":"ResourceNotFoundException","message":"can't find it"}"#,
                false,
                "ResourceNotFound",
            ),
            (
                400,
                r#"{"__type":"com.amazonaws#ThrottlingException"}"#,
                true,
                "answers 400 ThrottlingException",
            ),
            (
                400,
                r#"{"__type":"AccessDeniedException","Message":"role x may not"}"#,
                false,
                "role x may not",
            ),
            (503, "<html>", true, "ssm answers 503"),
        ] {
            let error = refusal("ssm", status, body.as_bytes());
            assert_eq!(matches!(error, SecretError::Unavailable(_)), passes, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
