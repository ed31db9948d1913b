-- class says in which order messages that wait in their rows are taken: 0 by their time; 1 and 2, important and other
-- mail of an account that sends more than its share, by turns of the accounts; 3 one at a time, since processes ended
-- while they had it in hand. An index's condition may name class, as no update of a message that is under way changes it.
alter table messages
    add column class      smallint not null default 0,
    add column crashes    smallint not null default 0, -- attempts that ended inside us
    add column perishable boolean not null default false; -- expires_at is the customer's own
drop index messages_due;
create index messages_due on messages (next_attempt_at) where next_attempt_at is not null and class = 0;
create index messages_due_later on messages (class, next_attempt_at) where next_attempt_at is not null and class > 0;
create index messages_turns on messages (account_id, class, next_attempt_at) where next_attempt_at is not null and class > 0;
