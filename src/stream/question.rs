//! What a subscriber asks for: where to start, whether to stay, and filters
//! (ntfy, "Subscribe via API").

use axum::extract::Query;
use axum::http::{HeaderMap, Uri};
use pushyard_providers::stream::{ID_LENGTH, Message};

use super::refusal::Refusal;

/// Where to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// Nothing from the backlog.
    None,
    /// All of it.
    All,
    /// The last message of each topic.
    Latest,
    /// What came after this message; everything, when it is unknown.
    Id(String),
    /// From this unix second on.
    Time(u64),
    /// From so many seconds ago on.
    Ago(u64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) poll: bool,
    pub(super) since: Since,
    /// Also what is to come.
    pub(super) scheduled: bool,
    filter: Filter,
    auth: Option<String>,
}

/// Which messages pass; `open` and `keepalive` always do.
#[derive(Debug, Default)]
struct Filter {
    id: Option<String>,
    message: Option<String>,
    title: Option<String>,
    priority: Vec<u8>,
    tags: Vec<String>,
}

/// What a request says beside its path: each parameter is a header, or stands in the
/// query in lower case; a header wins.
pub(super) struct Parameters<'r> {
    headers: &'r HeaderMap,
    query: Vec<(String, String)>,
}

impl<'r> Parameters<'r> {
    pub(super) fn read(headers: &'r HeaderMap, uri: &Uri) -> Self {
        let query = Query::try_from_uri(uri).map(|Query(query)| query).unwrap_or_default();
        Self { headers, query }
    }

    /// The first that is not empty.
    fn find(&self, names: &[&str]) -> Option<String> {
        let header = names.iter().find_map(|name| self.headers.get(*name)?.to_str().ok());
        let header = header.map(|value| value.trim().to_owned()).filter(|v| !v.is_empty());
        header.or_else(|| {
            let is = |(name, value): &&(String, String)| {
                names.contains(&name.as_str()) && !value.trim().is_empty()
            };
            self.query.iter().find(is).map(|(_, value)| value.trim().to_owned())
        })
    }

    /// ntfy's booleans: whatever is not one of these words is false.
    pub(super) fn truth(&self, names: &[&str]) -> bool {
        let said = self.find(names).map(|text| text.to_ascii_lowercase());
        said.is_some_and(|text| ["1", "yes", "true"].contains(&&*text))
    }

    fn list(&self, names: &[&str]) -> Vec<String> {
        list(&self.find(names).unwrap_or_default())
    }
}

fn list(text: &str) -> Vec<String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

impl Question {
    pub(super) fn read(headers: &HeaderMap, uri: &Uri) -> Result<Self, Refusal> {
        let asked = Parameters::read(headers, uri);
        let poll = asked.truth(&["x-poll", "poll", "po"]);
        // Browsers have a header of that name for the urgency of a request (RFC 9218).
        let priority = asked
            .find(&["x-priority", "priority", "prio", "p"])
            .filter(|text| !text.starts_with("u=") && text != "i");
        let priority = list(&priority.unwrap_or_default());
        Ok(Self {
            poll,
            since: since(asked.find(&["x-since", "since", "si"]).as_deref(), poll)?,
            scheduled: asked.truth(&["x-scheduled", "scheduled", "sched"]),
            filter: Filter {
                id: asked.find(&["x-id", "id"]),
                message: asked.find(&["x-message", "message", "m"]),
                title: asked.find(&["x-title", "title", "t"]),
                priority: priority.iter().map(|word| level(word)).collect::<Result<_, _>>()?,
                tags: asked.list(&["x-tags", "tags", "tag", "ta"]),
            },
            auth: asked
                .query
                .iter()
                .find(|(name, _)| name == "auth")
                .map(|(_, value)| value.clone()),
        })
    }

    pub(super) fn auth(&self) -> Option<&str> {
        self.auth.as_deref()
    }

    /// Whether a message is wanted.
    pub(super) fn wants(&self, message: &Message) -> bool {
        let Filter { id, message: text, title, priority, tags } = &self.filter;
        let none = id.is_none() && text.is_none() && title.is_none();
        if none && priority.is_empty() && tags.is_empty() {
            return true;
        }
        let seen = message.seen();
        let same = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        same(id, &seen.id)
            && same(text, &seen.message)
            && same(title, &seen.title)
            && (priority.is_empty() || priority.contains(&seen.priority))
            && tags.iter().all(|tag| seen.tags.contains(tag))
    }
}

fn since(text: Option<&str>, poll: bool) -> Result<Since, Refusal> {
    let Some(text) = text else { return Ok(if poll { Since::All } else { Since::None }) };
    let is_id = text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match text {
        "all" => Ok(Since::All),
        "none" => Ok(Since::None),
        "latest" => Ok(Since::Latest),
        _ if is_id => Ok(Since::Id(text.to_owned())),
        _ => match text.parse() {
            Ok(time) => Ok(Since::Time(time)),
            Err(_) => go_duration(text).map(Since::Ago).ok_or(Refusal::Since),
        },
    }
}

/// Seconds of a duration as Go writes it: `1h30m`, `90s`, `500ms`; no days.
fn go_duration(text: &str) -> Option<u64> {
    let well = text.bytes().all(|b| b.is_ascii_digit() || b"hmsun.".contains(&b));
    let duration = humantime::parse_duration(text).ok().filter(|_| well)?;
    Some(duration.as_secs())
}

fn level(word: &str) -> Result<u8, Refusal> {
    match &*word.to_ascii_lowercase() {
        "1" | "min" => Ok(1),
        "2" | "low" => Ok(2),
        "3" | "default" => Ok(3),
        "4" | "high" => Ok(4),
        "5" | "max" | "urgent" => Ok(5),
        _ => Err(Refusal::Priority),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(query: &str) -> Result<Question, Refusal> {
        Question::read(&HeaderMap::new(), &format!("/t/json?{query}").parse().unwrap())
    }

    #[test]
    fn since_is_read_as_ntfys_server_reads_it() {
        for (query, wanted) in [
            ("", Ok(Since::None)),
            ("poll=1", Ok(Since::All)),
            ("po=true&since=none", Ok(Since::None)),
            ("since=all", Ok(Since::All)),
            ("si=latest", Ok(Since::Latest)),
            ("since=abcDEF123456", Ok(Since::Id("abcDEF123456".to_owned()))),
            // The test for an id comes first.
            ("since=123456789012", Ok(Since::Id("123456789012".to_owned()))),
            ("since=1800000000", Ok(Since::Time(1_800_000_000))),
            ("since=10m", Ok(Since::Ago(600))),
            ("since=1h30m", Ok(Since::Ago(5400))),
            ("since=2days", Err(Refusal::Since)),
            ("since=1d", Err(Refusal::Since)),
            ("since=yesterday", Err(Refusal::Since)),
            ("since=-1", Err(Refusal::Since)),
        ] {
            assert_eq!(read(query).map(|question| question.since), wanted, "{query}");
        }
    }

    #[test]
    fn a_header_wins_and_filters_take_all_tags_and_any_priority() {
        let line = br#"{"id":"i","title":"T","message":"M","priority":4,"tags":["x","y"]}"#;
        let message = Message::new(1, "t", 1, 2, Bytes::from_static(line));
        let plain = Message::new(1, "t", 1, 2, Bytes::from_static(br#"{"id":"i"}"#));
        for (query, rich, bare) in [
            ("", true, true),
            ("id=i", true, true),
            ("title=T&m=M", true, false),
            ("t=t", false, false),
            ("p=high,max", true, false),
            ("priority=3", false, true),
            ("tags=x,y", true, false),
            ("ta=x,z", false, false),
        ] {
            let question = read(query).unwrap();
            assert_eq!((question.wants(&message), question.wants(&plain)), (rich, bare), "{query}");
        }
        assert_eq!(read("p=9").unwrap_err(), Refusal::Priority);
        let mut headers = HeaderMap::new();
        headers.insert("x-since", "all".parse().unwrap());
        headers.insert("priority", "u=1, i".parse().unwrap());
        let question = Question::read(&headers, &"/t/json?since=none".parse().unwrap()).unwrap();
        assert_eq!(question.since, Since::All);
        assert!(question.wants(&message));
    }
}
