-- Bytes of models that gateways sent until a round was committed, since the one before.
CREATE TABLE sent (round bigint PRIMARY KEY, bytes bigint NOT NULL);
