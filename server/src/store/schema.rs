//! The database's versions: which file this program can use, and how an older one becomes the newest.

use rusqlite::Connection;

/// `moor`, so that the database of another program is told from an empty one.
const APPLICATION_ID: i32 = 0x6d6f_6f72;

/// Each step leads from the version of its index to the next; version 0 is an empty file.
pub(super) const STEPS: &[&str] = &[
    include_str!("v1.sql"),
    include_str!("v2.sql"),
    include_str!("v3.sql"),
    include_str!("v4.sql"),
    include_str!("v5.sql"),
];

/// Why a file is not brought to the newest version.
#[derive(Debug)]
pub(super) enum SchemaError {
    /// The database of another program.
    Foreign,
    /// A later program made it.
    Newer { found: usize, known: usize },
    /// SQLite failed; the file is as it was.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for SchemaError {
    fn from(fault: rusqlite::Error) -> Self {
        Self::Sqlite(fault)
    }
}

/// Brings the file to the newest version, step by step in one transaction.
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> Result<(), SchemaError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found > steps.len() {
        return Err(SchemaError::Newer { found, known: steps.len() });
    }
    if found == steps.len() {
        return Ok(());
    }
    for step in steps.iter().skip(found) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", steps.len() as i64)?;
    Ok(transaction.commit()?)
}

/// The version of a file, which is not changed; 0 when there is nothing in it.
pub(super) fn version_of(connection: &Connection) -> Result<usize, SchemaError> {
    let found = version(connection)?;
    if found > STEPS.len() {
        return Err(SchemaError::Newer { found, known: STEPS.len() });
    }
    Ok(found)
}

fn version(connection: &Connection) -> Result<usize, SchemaError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    if tables == 0 {
        return Ok(0);
    }
    if number("application_id")? != i64::from(APPLICATION_ID) {
        return Err(SchemaError::Foreign);
    }
    usize::try_from(number("user_version")?).map_err(|_| SchemaError::Foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(connection: &Connection, query: &str) -> String {
        connection.query_row(query, (), |row| row.get(0)).unwrap()
    }

    #[test]
    fn older_file_keeps_what_it_holds() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps =
            ["CREATE TABLE boats (name TEXT)", "ALTER TABLE boats ADD COLUMN berth TEXT DEFAULT 'quay'"];
        migrate(&mut connection, &steps[..1]).unwrap();
        connection.execute("INSERT INTO boats VALUES ('Argo')", ()).unwrap();
        migrate(&mut connection, &steps).unwrap();
        migrate(&mut connection, &steps).unwrap();
        assert_eq!(text_of(&connection, "SELECT name || berth FROM boats"), "Argoquay");
    }

    #[test]
    fn failed_step_leaves_the_file_as_it_was() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps =
            ["CREATE TABLE boats (name TEXT)", "ALTER TABLE boats ADD COLUMN berth TEXT; DROP TABLE ships"];
        migrate(&mut connection, &steps[..1]).unwrap();
        assert!(matches!(migrate(&mut connection, &steps), Err(SchemaError::Sqlite(_))));
        let transaction = connection.transaction().unwrap();
        assert_eq!(version(&transaction).unwrap(), 1);
        assert!(transaction.prepare("SELECT berth FROM boats").is_err());
    }

    #[test]
    fn newer_and_foreign_files_are_told_apart() {
        let mut newer = Connection::open_in_memory().unwrap();
        migrate(&mut newer, &["CREATE TABLE a (x)", "CREATE TABLE b (x)"]).unwrap();
        let refused = migrate(&mut newer, &["CREATE TABLE a (x)"]);
        assert!(matches!(refused, Err(SchemaError::Newer { found: 2, known: 1 })));
        let mut foreign = Connection::open_in_memory().unwrap();
        foreign.execute_batch("CREATE TABLE recipes (x)").unwrap();
        assert!(matches!(migrate(&mut foreign, STEPS), Err(SchemaError::Foreign)));
    }
}
