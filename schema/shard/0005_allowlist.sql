-- An entry of the do-not-send list is for the whole account (subaccount '') or for the mail of one subaccount. Addresses
-- stand in the form that store.ListKey makes, and are compared by their bytes.
alter table rejects
    add column subaccount text not null default '',
    add column source     text not null default 'smtp', -- smtp, report, link or api
    alter column email type text collate "C",
    drop constraint rejects_pkey,
    add primary key (account_id, email, subaccount);
create index rejects_newest on rejects (account_id, created_at desc, email);

-- Addresses that are sent to whatever happens: they win over the do-not-send list.
create table allowlist (
    account_id bigint not null,
    email      text collate "C" not null,
    detail     text not null default '',
    created_at timestamptz not null default now(),
    primary key (account_id, email)
);
