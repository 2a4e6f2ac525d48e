-- One row: which version this schema has.
CREATE TABLE version (one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL);
INSERT INTO version (version) VALUES (0);

-- One row: the run. `snapshot` is the state between attempts, as of write `base`; `sequence` is the
-- last write.
CREATE TABLE run (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    run bytea NOT NULL,
    plan bytea NOT NULL,
    initial bytea NOT NULL,
    snapshot bytea NOT NULL,
    base bigint NOT NULL,
    sequence bigint NOT NULL
);

-- One row: who leads. An epoch is of one holder, ever.
CREATE TABLE lease (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL,
    holder text NOT NULL,
    until timestamptz NOT NULL
);
INSERT INTO lease (epoch, holder, until) VALUES (0, '', now());

-- Events of the open attempt.
CREATE TABLE event (sequence bigint PRIMARY KEY, epoch bigint NOT NULL, body bytea NOT NULL);

-- Who is registered, numbered in the order of that.
CREATE TABLE client (
    client bytea PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    enrolled bigint NOT NULL,
    token bytea
);

-- Committed rounds, and the updates in them.
CREATE TABLE round (
    round bigint PRIMARY KEY,
    attempt bigint NOT NULL,
    committed bigint NOT NULL,
    head bytea NOT NULL,
    training text NOT NULL,
    evaluation text NOT NULL,
    score double precision,
    draw bytea NOT NULL
);
CREATE TABLE counted (
    round bigint NOT NULL,
    client bytea NOT NULL,
    digest bytea NOT NULL,
    bytes bigint NOT NULL,
    samples bigint NOT NULL,
    PRIMARY KEY (round, client)
);

-- Attempts in which updates came in.
CREATE TABLE attempt (
    round bigint NOT NULL,
    attempt bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('collect', 'closed', 'committed', 'failed')),
    ended timestamptz,
    PRIMARY KEY (round, attempt)
);

-- Whose update is in an attempt. `finish` is what its client announced.
CREATE TABLE member (
    round bigint NOT NULL,
    attempt bigint NOT NULL,
    client bytea NOT NULL,
    digest bytea NOT NULL,
    bytes bigint NOT NULL,
    finish bytea NOT NULL,
    PRIMARY KEY (round, attempt, client),
    FOREIGN KEY (round, attempt) REFERENCES attempt ON DELETE CASCADE
);

-- Parts of a closed attempt: 64 updates each. `list` is the digest of all parts' updates.
CREATE TABLE part (
    round bigint NOT NULL,
    attempt bigint NOT NULL,
    number bigint NOT NULL,
    list bytea NOT NULL,
    updates bytea NOT NULL,
    token bytea,
    holder text,
    until timestamptz,
    claims integer NOT NULL DEFAULT 0,
    done boolean NOT NULL DEFAULT false,
    sum bytea,
    lost bytea,
    PRIMARY KEY (round, attempt, number)
);
CREATE INDEX part_open ON part (round, attempt, number) WHERE NOT done;

-- What clients said at gateways, for the leader. `outcome` is its answer, made when the run was at
-- write `sequence`.
CREATE TABLE request (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client bytea NOT NULL,
    body bytea NOT NULL,
    asked timestamptz NOT NULL DEFAULT now(),
    outcome text,
    detail bigint,
    sequence bigint
);
CREATE INDEX request_open ON request (number) WHERE outcome IS NULL;

-- What may be lost with the database's process: who was heard of, which nonces were used, who serves.
CREATE UNLOGGED TABLE presence (
    client bytea PRIMARY KEY,
    samples bigint NOT NULL,
    seen timestamptz NOT NULL
);
CREATE INDEX presence_seen ON presence (seen);
CREATE UNLOGGED TABLE nonce (
    client bytea NOT NULL,
    nonce bytea NOT NULL,
    seen timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client, nonce)
);
CREATE INDEX nonce_seen ON nonce (seen);
CREATE UNLOGGED TABLE role (
    name text PRIMARY KEY,
    kind text NOT NULL,
    started timestamptz NOT NULL DEFAULT now(),
    seen timestamptz NOT NULL,
    detail text NOT NULL
);
