//! Which file holds which objects, and what a change of files means for the objects.

use super::parse::{Broken, Parsed};
use crate::source::{Event, Object, ObjectKey};
use std::collections::{BTreeMap, BTreeSet};

/// The files of the folder, by name.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    files: BTreeMap<String, File>,
    /// The files that hold an object; the last one counts.
    holders: BTreeMap<ObjectKey, BTreeSet<String>>,
    said: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<ObjectKey, Object>,
    broken: Option<String>,
    /// Objects that it holds more than once.
    repeated: Vec<ObjectKey>,
}

/// What has become of a file.
#[derive(Debug)]
pub(super) enum Change {
    /// It was read.
    Read(Result<Parsed, Broken>),
    /// It exists and can't be read.
    Unreadable(String),
    /// It is gone.
    Gone,
}

impl Change {
    /// Whether the file is gone.
    pub(super) const fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
    }
}

impl Catalog {
    /// Takes in changes of files, by name; returns what they mean. Problems are reported under
    /// the names that `display` makes of file names.
    pub(super) fn update(
        &mut self,
        changes: Vec<(String, Change)>,
        display: impl Fn(&str) -> String,
    ) -> Vec<Event> {
        let touched = self.touched(&changes);
        let before: BTreeMap<ObjectKey, Option<Object>> = touched
            .into_iter()
            .map(|key| (key.clone(), self.object(&key).cloned()))
            .collect();
        let mut suspects: BTreeSet<String> = BTreeSet::new();
        for key in before.keys() {
            suspects.extend(self.holders.get(key).into_iter().flatten().cloned());
        }
        for (name, change) in changes {
            suspects.insert(name.clone());
            self.change(&name, change, &display(&name));
        }
        let mut events = Vec::new();
        for (key, object) in before {
            suspects.extend(self.holders.get(&key).into_iter().flatten().cloned());
            events.extend(self.event(key, object));
        }
        for name in suspects {
            events.extend(self.report(&name, &display));
        }
        events
    }

    /// All objects that may come, go or change.
    fn touched(&self, changes: &[(String, Change)]) -> BTreeSet<ObjectKey> {
        let mut touched = BTreeSet::new();
        for (name, change) in changes {
            let now = match change {
                Change::Read(Ok(parsed)) => parsed.objects.as_slice(),
                Change::Gone => &[],
                Change::Read(Err(_)) | Change::Unreadable(_) => continue,
            };
            touched.extend(now.iter().map(Object::key));
            let before = self.files.get(name);
            touched.extend(before.iter().flat_map(|file| file.objects.keys()).cloned());
        }
        touched
    }

    /// The object as the last of its files has it.
    fn object(&self, key: &ObjectKey) -> Option<&Object> {
        let name = self.holders.get(key)?.last()?;
        self.files.get(name)?.objects.get(key)
    }

    fn change(&mut self, name: &str, change: Change, display: &str) {
        match change {
            Change::Read(Ok(parsed)) => self.put(name, parsed.objects),
            Change::Read(Err(broken)) => self.break_(name, format!("{display}:{broken}")),
            Change::Unreadable(why) => self.break_(name, format!("{display}: {why}")),
            Change::Gone => {
                self.put(name, Vec::new());
                self.files.remove(name);
            }
        }
    }

    /// What the file held last stays.
    fn break_(&mut self, name: &str, problem: String) {
        self.files.entry(name.to_owned()).or_default().broken = Some(problem);
    }

    fn put(&mut self, name: &str, objects: Vec<Object>) {
        let mut file = File::default();
        for object in objects {
            let key = object.key();
            if file.objects.insert(key.clone(), object).is_some() {
                file.repeated.push(key);
            }
        }
        for key in file.objects.keys() {
            let holders = self.holders.entry(key.clone()).or_default();
            holders.insert(name.to_owned());
        }
        let before = self.files.remove(name).unwrap_or_default();
        for key in before.objects.into_keys() {
            if !file.objects.contains_key(&key) {
                self.forget(name, &key);
            }
        }
        self.files.insert(name.to_owned(), file);
    }

    fn forget(&mut self, name: &str, key: &ObjectKey) {
        if let Some(holders) = self.holders.get_mut(key) {
            holders.remove(name);
            if holders.is_empty() {
                self.holders.remove(key);
            }
        }
    }

    fn event(&self, key: ObjectKey, before: Option<Object>) -> Option<Event> {
        match self.object(&key) {
            Some(now) if before.as_ref() == Some(now) => None,
            Some(now) => Some(Event::Apply(now.clone())),
            None => before.map(|_| Event::Delete(key)),
        }
    }

    /// The problems of a file, if they are not what was said before.
    fn report(&mut self, name: &str, display: impl Fn(&str) -> String) -> Option<Event> {
        let problems = self.problems(name, &display);
        let before = self.said.remove(name).unwrap_or_default();
        if !problems.is_empty() {
            self.said.insert(name.to_owned(), problems.clone());
        }
        (problems != before).then(|| Event::Problems {
            origin: display(name),
            problems,
        })
    }

    fn problems(&self, name: &str, display: impl Fn(&str) -> String) -> Vec<String> {
        let Some(file) = self.files.get(name) else {
            return Vec::new();
        };
        let mut problems: Vec<String> = file.broken.iter().cloned().collect();
        for key in &file.repeated {
            problems.push(format!(
                "{}: {key}: more than once in this file, the last one counts",
                display(name)
            ));
        }
        for key in file.objects.keys() {
            let last = self.holders.get(key).and_then(BTreeSet::last);
            if let Some(last) = last.filter(|last| *last != name) {
                let (name, last) = (display(name), display(last));
                problems.push(format!("{name}: {key}: also in {last}, which counts"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifests::parse::parse;

    fn file(name: &str, text: &str) -> (String, Change) {
        (name.to_owned(), Change::Read(parse(text.as_bytes())))
    }

    fn service(name: &str, address: &str) -> String {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{clusterIP: {address}}}}}\n"
        )
    }

    /// Events as short lines.
    fn update(catalog: &mut Catalog, changes: Vec<(String, Change)>) -> Vec<String> {
        let events = catalog.update(changes, |name| format!("dir/{name}"));
        events.into_iter().map(line).collect()
    }

    fn line(event: Event) -> String {
        match event {
            Event::Apply(Object::Service(service)) => {
                let spec = service.spec.unwrap();
                format!(
                    "{} {}",
                    service.metadata.name.unwrap(),
                    spec.cluster_ip.unwrap()
                )
            }
            Event::Delete(key) => format!("-{}", key.name),
            Event::Problems { origin, problems } => format!("{origin}: {problems:?}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_differs_is_told() {
        let mut catalog = Catalog::default();
        let text = service("a", "10.0.0.1") + &service("b", "10.0.0.2");
        assert_eq!(
            update(&mut catalog, vec![file("x.yaml", &text)]),
            ["a 10.0.0.1", "b 10.0.0.2"]
        );
        let text = service("b", "10.0.0.3") + &service("a", "10.0.0.1") + &service("c", "10.0.0.4");
        assert_eq!(
            update(&mut catalog, vec![file("x.yaml", &text)]),
            ["b 10.0.0.3", "c 10.0.0.4"]
        );
        let text = service("a", "10.0.0.1");
        assert_eq!(
            update(&mut catalog, vec![file("x.yaml", &text)]),
            ["-b", "-c"]
        );
        let gone = ("x.yaml".to_owned(), Change::Gone);
        assert_eq!(update(&mut catalog, vec![gone]), ["-a"]);
        assert!(catalog.files.is_empty() && catalog.holders.is_empty());
    }

    #[test]
    fn the_last_file_by_name_counts_and_the_other_takes_over() {
        let mut catalog = Catalog::default();
        update(
            &mut catalog,
            vec![file("b.yaml", &service("a", "10.0.0.2"))],
        );
        let told = update(
            &mut catalog,
            vec![file("a.yaml", &service("a", "10.0.0.1"))],
        );
        assert_eq!(
            told,
            [r#"dir/a.yaml: ["dir/a.yaml: Service default/a: also in dir/b.yaml, which counts"]"#]
        );
        let gone = ("b.yaml".to_owned(), Change::Gone);
        assert_eq!(
            update(&mut catalog, vec![gone]),
            ["a 10.0.0.1", "dir/a.yaml: []"]
        );
    }

    #[test]
    fn an_object_that_moves_to_another_file_does_not_go_away() {
        let mut catalog = Catalog::default();
        update(
            &mut catalog,
            vec![file("a.yaml", &service("a", "10.0.0.1"))],
        );
        let gone = ("a.yaml".to_owned(), Change::Gone);
        let told = update(
            &mut catalog,
            vec![gone, file("b.yaml", &service("a", "10.0.0.1"))],
        );
        assert_eq!(told, [""; 0]);
    }

    #[test]
    fn a_broken_file_keeps_its_objects_and_says_so_once() {
        let mut catalog = Catalog::default();
        update(
            &mut catalog,
            vec![file("a.yaml", &service("a", "10.0.0.1"))],
        );
        let told = update(&mut catalog, vec![file("a.yaml", "kind: Service\n")]);
        assert_eq!(
            told,
            [r#"dir/a.yaml: ["dir/a.yaml:1: apiVersion: missing"]"#]
        );
        let told = update(&mut catalog, vec![file("a.yaml", "kind: Service\n")]);
        assert_eq!(told, [""; 0]);
        let told = update(
            &mut catalog,
            vec![file("a.yaml", &service("a", "10.0.0.1"))],
        );
        assert_eq!(told, ["dir/a.yaml: []"]);
    }

    #[test]
    fn an_object_twice_in_a_file_is_reported() {
        let mut catalog = Catalog::default();
        let text = service("a", "10.0.0.1") + &service("a", "10.0.0.2");
        let told = update(&mut catalog, vec![file("a.yaml", &text)]);
        assert_eq!(told[0], "a 10.0.0.2");
        assert!(told[1].contains("more than once"), "{told:?}");
    }
}
