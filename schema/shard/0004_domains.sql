-- Sending domains of an account, each with a token that its owner publishes, and the keys that sign its mail. They move
-- with the account.
create table domains (
    account_id    bigint not null,
    domain        text not null, -- lower case, A-labels, without a dot at the end
    token         text not null, -- what the domain's owner publishes; random, so that no other account can know it
    return_path   text not null, -- sub-domains of this domain, as labels
    tracking      text not null,
    ed25519_only  boolean not null default false,
    vouched       boolean not null default false, -- by the operator: no look-up takes it away
    created_at    timestamptz not null default now(),
    mailed_at     timestamptz, -- a mailbox of the domain was last sent a link
    mailbox_at    timestamptz, -- it was followed, which proves ownership as the token does
    verified_at   timestamptz, -- mail may be sent and is signed
    proved_at     timestamptz, -- the last look-up that found everything that verification needs
    failing_since timestamptz, -- the first look-up of those in a row that found something missing
    checked_at    timestamptz,
    next_check_at timestamptz, -- null: only when asked
    results       bytea not null default '', -- of the last check
    primary key (account_id, domain)
);
create index domains_due on domains (next_check_at) where next_check_at is not null;

create table domain_keys (
    account_id   bigint not null,
    domain       text not null,
    selector     text not null,
    algorithm    text not null,     -- rsa or ed25519
    stage        smallint not null, -- 0 next, 1 current, 2 old
    record       text not null,     -- the TXT record's value
    sealed       bytea not null,    -- the private key, sealed; empty when old
    created_at   timestamptz not null default now(),
    published_at timestamptz,       -- its record was first seen; null: not seen
    retires_at   timestamptz,       -- an old key's record may go
    primary key (account_id, domain, selector)
);
