-- The database of the demo: a table of packages, and who changes it.

CREATE EXTENSION poll_ext;

CREATE TABLE packages (
    package text PRIMARY KEY,
    version text NOT NULL,
    architecture text NOT NULL,
    section text NOT NULL,
    size bigint NOT NULL,
    maintainer text NOT NULL,
    description text NOT NULL
);

-- What the writers are to do, by number
CREATE TABLE updates (LIKE packages, n int GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0));
CREATE TABLE removals (package text, n int GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0));

-- Each transaction takes the next 30, and every other one is this writer's. The
-- pause keeps it open for a moment, so that those of the writers overlap.

CREATE PROCEDURE write_updates(writer int, writers int) LANGUAGE plpgsql AS $$
DECLARE
    batch int;
BEGIN
    FOR batch IN SELECT DISTINCT n / 30 FROM updates WHERE n / 30 % writers = writer ORDER BY 1 LOOP
        INSERT INTO packages
        SELECT package, version, architecture, section, size, maintainer, description
          FROM updates
         WHERE n / 30 = batch
            ON CONFLICT (package) DO UPDATE
           SET version = excluded.version,
               architecture = excluded.architecture,
               section = excluded.section,
               size = excluded.size,
               maintainer = excluded.maintainer,
               description = excluded.description;
        PERFORM pg_sleep(0.05);
        COMMIT;
    END LOOP;
END $$;

CREATE PROCEDURE write_removals(writer int, writers int) LANGUAGE plpgsql AS $$
DECLARE
    batch int;
BEGIN
    FOR batch IN SELECT DISTINCT n / 30 FROM removals WHERE n / 30 % writers = writer ORDER BY 1 LOOP
        DELETE FROM packages p
         USING removals r
         WHERE r.package = p.package AND r.n / 30 = batch;
        PERFORM pg_sleep(0.05);
        COMMIT;
    END LOOP;
END $$;

-- The mirror may read the table, and so it may poll it.
CREATE ROLE mirror LOGIN;
GRANT SELECT ON packages TO mirror;
