//! Users and groups as `/etc/passwd` and `/etc/group` have them (passwd(5), group(5)).

use std::fs;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// Its name.
    pub(crate) name: String,
    /// Its number.
    pub(crate) uid: u32,
    /// Number of its group.
    pub(crate) gid: u32,
    /// Name of that group, or its number where it has none.
    pub(crate) group: String,
    /// Numbers of all groups that it is in.
    pub(crate) groups: Vec<u32>,
}

impl Account {
    /// Of this machine.
    pub(crate) fn look_up(name: &str) -> Option<Self> {
        Self::find(&table(USERS), &table(GROUPS), name)
    }

    /// The user called `name`.
    fn find(passwd: &str, group: &str, name: &str) -> Option<Self> {
        let users = passwd.lines().map(fields);
        let user = users.into_iter().find(|fields| fields.first() == Some(&name))?;
        let number = |at: usize| user.get(at)?.parse::<u32>().ok();
        let (uid, gid) = (number(2)?, number(3)?);
        let rows = || group.lines().map(fields);
        let number_of = |fields: &[&str]| fields.get(2)?.parse::<u32>().ok();
        let own = rows().find(|fields| number_of(fields) == Some(gid));
        let own = own.and_then(|fields| fields.first().map(|name| (*name).to_owned()));
        let with_us =
            |fields: &Vec<&str>| fields.get(3).is_some_and(|members| members.split(',').any(|one| one == name));
        let mut groups: Vec<u32> = rows().filter(with_us).filter_map(|fields| number_of(&fields)).collect();
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        Some(Self { name: name.to_owned(), uid, gid, group: own.unwrap_or_else(|| gid.to_string()), groups })
    }
}

/// The name of a user by its number, or that number.
pub(crate) fn name_of(uid: u32) -> String {
    named(&table(USERS), uid)
}

fn named(passwd: &str, uid: u32) -> String {
    let fits = |fields: &Vec<&str>| fields.get(2).and_then(|number| number.parse().ok()) == Some(uid);
    let found = passwd.lines().map(fields).find(fits).and_then(|fields| fields.first().map(|name| (*name).to_owned()));
    found.unwrap_or_else(|| uid.to_string())
}

/// The number of a user, who may be given as such.
pub(crate) fn user_number(name: &str) -> Option<u32> {
    number_of(USERS, name)
}

/// The same of a group.
pub(crate) fn group_number(name: &str) -> Option<u32> {
    number_of(GROUPS, name)
}

fn number_of(path: &str, name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let table = table(path);
    let found = table.lines().map(fields).find(|fields| fields.first() == Some(&name));
    // Root's number is the same everywhere, also where there is no such file.
    found.and_then(|fields| fields.get(2)?.parse().ok()).or((name == "root").then_some(0))
}

/// Where a table is missing, nobody is in it.
fn table(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn fields(line: &str) -> Vec<&str> {
    line.trim_end().split(':').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\ncygnet:x:998:997::/:/usr/sbin/nologin\nlost:x:many:1::/:\n";
    const GROUP: &str = "root:x:0:\ncygnet:x:997:\nssl:x:40:web,cygnet\nnot:x:41:cygnets\nssl2:x:40:cygnet\n";

    #[test]
    fn a_user_is_found_with_its_groups() {
        let account = Account::find(PASSWD, GROUP, "cygnet").unwrap();
        assert_eq!((account.uid, account.gid, &*account.group), (998, 997, "cygnet"));
        assert_eq!(account.groups, [40, 997]);
        let lonely = Account::find(PASSWD, "", "cygnet").unwrap();
        assert_eq!((&*lonely.group, lonely.groups), ("997", vec![997]));
    }

    #[test]
    fn who_is_not_there_or_makes_no_sense_is_not_found() {
        for name in ["nobody", "broken", "lost", ""] {
            assert_eq!(Account::find(PASSWD, GROUP, name), None, "{name}");
        }
        assert_eq!((named(PASSWD, 998), named(PASSWD, 5)), ("cygnet".into(), "5".into()));
    }
}
