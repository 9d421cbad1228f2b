//! A request's query, read so that nothing in it is overlooked: what is not known, doubled or out of bounds is a problem
//! that says what is possible.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::Query;
use axum::http::Uri;

use super::problem::Problem;

/// The parameters of one request.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query; `known` are all the parameters there are.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let whole = uri.query().unwrap_or_default();
        let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
        let Query(pairs) =
            query.map_err(|_| Problem::parameter("query", whole, "of the form name=value&name=value"))?;
        for (place, (name, value)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let allowed = format!("none of the parameters here, which are {}", known.join(", "));
                return Err(Problem::parameter(name, value, &allowed));
            }
            if pairs.iter().take(place).any(|(earlier, _)| earlier == name) {
                return Err(Problem::parameter(name, value, "given once"));
            }
        }
        Ok(Self(pairs))
    }

    /// As [`Self::read`], of a form, which sends every field: one that was left empty is none.
    pub(super) fn read_form(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Self(mut pairs) = Self::read(uri, known)?;
        pairs.retain(|(_, value)| !value.is_empty());
        Ok(Self(pairs))
    }

    /// All of them, as they came.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A value that is read from its text; `what` says what that text is.
    pub(super) fn parsed<T>(&self, name: &str, what: &str) -> Result<Option<T>, Problem>
    where
        T: FromStr,
        T::Err: Display,
    {
        let read = |text: &str| {
            text.parse().map_err(|why| Problem::parameter(name, text, &format!("{what} ({why})")))
        };
        self.text(name).map(read).transpose()
    }

    pub(super) fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Problem>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse().ok().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let allowed = format!("a number from {} to {}", range.start(), range.end());
                Err(Problem::parameter(name, text, &allowed))
            }
        }
    }

    pub(super) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match choices.iter().find(|(choice, _)| *choice == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let names: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
                Err(Problem::parameter(name, text, &names.join(" or ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &'static str) -> Result<Parameters, Problem> {
        Parameters::read(&Uri::try_from(format!("/x?{query}")).unwrap(), &["limit", "online"])
    }

    fn said(problem: &Problem) -> String {
        serde_json::to_value(problem).unwrap()["detail"].as_str().unwrap().to_owned()
    }

    #[test]
    fn values_are_read() {
        let parameters = read("limit=7&online=true").ok().unwrap();
        assert_eq!(parameters.number("limit", 1..=9).unwrap(), Some(7));
        assert_eq!(parameters.choice("online", &[("true", 1), ("false", 0)]).unwrap(), Some(1));
        assert_eq!(parameters.number("absent", 1..=9).unwrap(), None);
    }

    #[test]
    fn unknown_and_doubled_ones_are_named() {
        let unknown = said(&read("limti=7").err().unwrap());
        assert_eq!(
            unknown,
            "limti=7 is not possible: limti is none of the parameters here, which are limit, online"
        );
        let doubled = said(&read("limit=7&limit=8").err().unwrap());
        assert_eq!(doubled, "limit=8 is not possible: limit is given once");
    }

    #[test]
    fn what_is_possible_is_said() {
        let parameters = read("limit=0&online=maybe").ok().unwrap();
        let limit = said(&parameters.number("limit", 1..=9).unwrap_err());
        assert_eq!(limit, "limit=0 is not possible: limit is a number from 1 to 9");
        let online = said(&parameters.choice("online", &[("true", 1), ("false", 0)]).unwrap_err());
        assert_eq!(online, "online=maybe is not possible: online is true or false");
    }
}
