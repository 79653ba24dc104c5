//! One table of the document, read by the names of its settings.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::findings::{Findings, Problem, Wrong};
use super::value;

/// A table that remembers what it was asked for. One that the document does not have is an empty one.
pub(super) struct Table<'t, 'f> {
    /// Its full name; empty for the root.
    path: String,
    /// Its place in the text, in bytes; that of the table around it when it is not there.
    at: usize,
    /// None when the document does not have it.
    entries: Option<&'t DeTable<'t>>,
    asked: Vec<String>,
    findings: &'f mut Findings,
}

impl<'t> Table<'t, '_> {
    /// Reads a whole document by `body`.
    pub(super) fn walk<T>(
        document: &'t DeTable<'t>,
        findings: &mut Findings,
        body: impl FnOnce(&mut Table<'t, '_>) -> T,
    ) -> T {
        Self::visit(String::new(), 0, Some(document), findings, body)
    }

    /// Reads one table by `body`, then reports what nobody asked for.
    fn visit<T>(
        path: String,
        at: usize,
        entries: Option<&'t DeTable<'t>>,
        findings: &mut Findings,
        body: impl FnOnce(&mut Table<'t, '_>) -> T,
    ) -> T {
        let mut table = Table { path, at, entries, asked: Vec::new(), findings };
        let result = body(&mut table);
        for key in entries.into_iter().flat_map(DeTable::keys) {
            if !table.asked.iter().any(|asked| asked.as_str() == key.get_ref()) {
                let path = table.path_of(key.get_ref());
                let problem = Problem::Unknown { table: table.path.clone(), name: key.get_ref().to_string() };
                table.findings.add(key.span().start, path, problem);
            }
        }
        result
    }

    /// Whether the document has this table.
    pub(super) fn is_present(&self) -> bool {
        self.entries.is_some()
    }

    /// Whether the document has this setting, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// Whether the document has any setting in this table besides `key`.
    pub(super) fn has_other_than(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.keys().any(|other| other.get_ref() != key))
    }

    /// The value of a setting, if it is there and right.
    pub(super) fn read<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.ask(key)?;
        self.parse(key, value, parse)
    }

    /// Puts the value of a setting in its place, if it is there and right.
    pub(super) fn set<T>(
        &mut self,
        key: &str,
        place: &mut T,
        parse: impl FnOnce(&DeValue<'t>) -> Result<T, Wrong>,
    ) {
        if let Some(value) = self.read(key, parse) {
            *place = value;
        }
    }

    /// The value of a setting that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&DeValue<'t>) -> Result<T, Wrong>,
        fix: &str,
    ) -> Option<T> {
        let value = self.read(key, parse);
        if !self.has(key) {
            self.missing(key, fix);
        }
        value
    }

    /// The values of a list that is not empty, if all are right.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        self.elements(key, value::elements, parse)
    }

    /// The values of a list that may be empty, if all are right.
    pub(super) fn any_list<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        self.elements(key, value::any_elements, parse)
    }

    fn elements<T>(
        &mut self,
        key: &str,
        elements: impl FnOnce(&'t DeValue<'t>) -> Result<&'t DeArray<'t>, Wrong>,
        parse: impl Fn(&DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let value = self.ask(key)?;
        let elements = self.parse(key, value, elements)?;
        let mut values = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            match parse(element.get_ref()) {
                Ok(value) => values.push(value),
                Err(wrong) => {
                    let path = format!("{}[{index}]", self.path_of(key));
                    self.findings.add(element.span().start, path, Problem::Wrong(wrong));
                }
            }
        }
        (values.len() == elements.len()).then_some(values)
    }

    /// The table under a key, read by `body` whether it is there or not.
    pub(super) fn table<T>(&mut self, key: &str, body: impl FnOnce(&mut Table<'t, '_>) -> T) -> T {
        let value = self.ask(key);
        let at = value.map_or(self.at, |value| value.span().start);
        let form = format!("write a table: [{}]", self.path_of(key));
        let entries = value.and_then(|value| self.parse(key, value, |value| value::table(value, &form)));
        Self::visit(self.path_of(key), at, entries, self.findings, body)
    }

    /// The tables of a list, if there is a list; it may be empty.
    pub(super) fn tables<T>(
        &mut self,
        key: &str,
        mut body: impl FnMut(&mut Table<'t, '_>) -> T,
    ) -> Option<Vec<T>> {
        let value = self.ask(key)?;
        let form = format!("write [[{}]] before each", self.path_of(key));
        let elements = self.parse(key, value, |value| value::tables(value, &form))?;
        let mut results = Vec::new();
        for element in elements {
            let entries = self.parse(key, element, |value| value::table(value, &form));
            let (path, at) = (self.path_of(key), element.span().start);
            if entries.is_some() {
                results.push(Self::visit(path, at, entries, self.findings, &mut body));
            }
        }
        Some(results)
    }

    /// What is under names that people choose themselves, each read by `body`.
    pub(super) fn chosen<K: Ord, T>(
        &mut self,
        parse: impl Fn(&str) -> Result<K, Wrong>,
        mut body: impl FnMut(&mut Self, &str) -> T,
    ) -> BTreeMap<K, T> {
        self.findings.asked.insert(self.path_of("NAME"));
        let mut chosen = BTreeMap::new();
        for key in self.entries.into_iter().flat_map(DeTable::keys) {
            let name: &str = key.get_ref();
            let value = body(self, name);
            match parse(name) {
                Ok(key) => {
                    chosen.insert(key, value);
                }
                Err(wrong) => self.findings.add(key.span().start, self.path_of(name), Problem::Wrong(wrong)),
            }
        }
        chosen
    }

    /// Reports that a setting is not there.
    pub(super) fn missing(&mut self, key: &str, fix: impl Into<String>) {
        self.findings.add(self.at, self.path_of(key), Problem::Missing { fix: fix.into() });
    }

    /// Reports the value of a setting.
    pub(super) fn wrong(&mut self, key: &str, is: impl Into<String>, fix: impl Into<String>) {
        let value = self.entries.and_then(|entries| entries.get(key));
        let at = value.map_or(self.at, |value| value.span().start);
        self.findings.add(at, self.path_of(key), Problem::Wrong(Wrong::new(is, fix)));
    }

    /// Reports the table itself.
    pub(super) fn wrong_here(&mut self, is: impl Into<String>, fix: impl Into<String>) {
        self.findings.add(self.at, self.path.clone(), Problem::Wrong(Wrong::new(is, fix)));
    }

    /// The full name of a setting in this table, with quotes where TOML wants them.
    fn path_of(&self, key: &str) -> String {
        let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        let dot = if self.path.is_empty() { "" } else { "." };
        if !key.is_empty() && key.bytes().all(bare) {
            format!("{}{dot}{key}", self.path)
        } else {
            format!("{}{dot}{key:?}", self.path)
        }
    }

    fn ask(&mut self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.findings.asked.insert(self.path_of(key));
        self.asked.push(key.to_owned());
        self.entries?.get(key)
    }

    fn parse<T>(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
        parse: impl FnOnce(&'t DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<T> {
        match parse(value.get_ref()) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.findings.add(value.span().start, self.path_of(key), Problem::Wrong(wrong));
                None
            }
        }
    }
}
