-- Rate limits: what a check answers, who pays for what, and bad input.  The
-- clock is that of the test.

SET poll_ext.debug_rate_clock = 1000;
\set VERBOSITY default
\set SHOW_CONTEXT never

-- without a policy there is no limit, which a null quota says
SELECT * FROM poll.rate_check('ann');
SELECT * FROM poll.rate_peek('ann', 'export', 1000000);
SELECT poll.rate_reset('ann');

-- strict: never more than the quota in any ten seconds
SELECT poll.set_rate_policy('default', 3, '10 s', 'strict');
SELECT * FROM poll.rate_check('ann');
SELECT * FROM poll.rate_check('ann', cost => 2);
SELECT * FROM poll.rate_check('ann');
-- a refusal costs nothing; a smaller cost may be possible
SELECT * FROM poll.rate_check('bob', cost => 2);
SELECT * FROM poll.rate_check('bob', cost => 2);
SELECT * FROM poll.rate_check('bob');
-- a peek costs nothing, and answers as a check would
SELECT * FROM poll.rate_peek('carol', cost => 3);
SELECT * FROM poll.rate_peek('carol', cost => 3);
SELECT * FROM poll.rate_peek('ann');
-- just before retry_after, and then
SET poll_ext.debug_rate_clock = 1010.999999;
SELECT * FROM poll.rate_check('ann');
SET poll_ext.debug_rate_clock = 1011;
SELECT * FROM poll.rate_check('ann');

-- rolling back gives nothing back, and a READ ONLY transaction may check
BEGIN;
SELECT allowed, remaining FROM poll.rate_check('dave');
SAVEPOINT s;
SELECT allowed, remaining FROM poll.rate_check('dave');
ROLLBACK TO s;
ROLLBACK;
BEGIN READ ONLY;
SELECT allowed, remaining FROM poll.rate_check('dave');
COMMIT;
SELECT allowed FROM poll.rate_check('dave');

-- a policy of its own; an endpoint without one shares the default's counter
SELECT poll.set_rate_policy('export', 1, '1 min', 'gcra');
SELECT allowed, quota, retry_after FROM poll.rate_check('dave', 'export');
SELECT allowed, quota, retry_after FROM poll.rate_check('dave', 'export');
SELECT allowed, quota, remaining FROM poll.rate_check('erin', 'one thing');
SELECT allowed, quota, remaining FROM poll.rate_check('erin', 'another');
SELECT allowed, quota, remaining FROM poll.rate_check('erin', repeat('long', 50));

-- a minimum interval: quota 1
SET poll_ext.debug_rate_clock = 1070.999999;
SELECT allowed, retry_after FROM poll.rate_check('dave', 'export');
SET poll_ext.debug_rate_clock = 1071;
SELECT allowed, retry_after FROM poll.rate_check('dave', 'export');

-- gcra: a burst, and then evenly
SELECT poll.set_rate_policy('search', 60, '1 min', 'gcra', burst => 3);
SELECT poll.rate_check('dave', 'search') FROM generate_series(1, 4);
SET poll_ext.debug_rate_clock = 1072;
SELECT poll.rate_check('dave', 'search') FROM generate_series(1, 2);
SET poll_ext.debug_rate_clock = 1075;
SELECT poll.rate_check('dave', 'search', 3);

-- a clock that goes back is taken as standing still
SET poll_ext.debug_rate_clock = 1070;
SELECT poll.rate_peek('dave', 'search');
SET poll_ext.debug_rate_clock = 1075;

-- window: a burst is forgotten a tenth of it gradually, then the rest at once
SELECT poll.set_rate_policy('list', 20, '10 s');
SELECT * FROM poll.rate_check('dave', 'list', 20);
SELECT * FROM poll.rate_peek('dave', 'list', 2);
SELECT * FROM poll.rate_peek('dave', 'list', 3);
SET poll_ext.debug_rate_clock = 1085.1;
SELECT * FROM poll.rate_check('dave', 'list', 2);
SET poll_ext.debug_rate_clock = 1085.5;
SELECT * FROM poll.rate_peek('dave', 'list', 3);
SET poll_ext.debug_rate_clock = 1086;
SELECT * FROM poll.rate_peek('dave', 'list', 3);

-- and here, too, the clock may go back
SET poll_ext.debug_rate_clock = 1080;
SELECT * FROM poll.rate_check('dave', 'list', 18);

-- the policies
SELECT * FROM poll.rate_policies ORDER BY endpoint;
SELECT * FROM poll.stat_rate ORDER BY endpoint;

-- a new quota keeps what was spent, another interval or algorithm starts anew
SELECT poll.set_rate_policy('list', 19, '10 s');
SELECT allowed, quota, remaining FROM poll.rate_peek('dave', 'list');
SELECT poll.set_rate_policy('list', 30, '10 s');
SELECT allowed, quota, remaining FROM poll.rate_peek('dave', 'list');
SELECT poll.set_rate_policy('list', 30, '20 s');
SELECT allowed, quota, remaining FROM poll.rate_peek('dave', 'list');
SELECT poll.set_rate_policy('list', 30, '20 s', 'strict');
SELECT allowed, quota, remaining FROM poll.rate_peek('dave', 'list', 30);
-- and in force only if it commits
BEGIN;
SELECT poll.set_rate_policy('list', 10, '20 s', 'strict');
SELECT quota FROM poll.rate_peek('dave', 'list');
SAVEPOINT s;
SELECT poll.drop_rate_policy('list');
SELECT quota FROM poll.rate_peek('dave', 'list');
ROLLBACK TO s;
SELECT quota FROM poll.rate_peek('dave', 'list');
ROLLBACK;
SELECT quota FROM poll.rate_peek('dave', 'list');

-- an administrator can forgive
SELECT allowed FROM poll.rate_check('frank', 'export');
SELECT allowed FROM poll.rate_check('frank', 'export');
SELECT poll.rate_reset('frank', 'export');
SELECT poll.rate_reset('frank', 'export');
SELECT allowed FROM poll.rate_check('frank', 'export');

CREATE FUNCTION complaint(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
	detail text;
BEGIN
	EXECUTE 'SELECT ' || call INTO result;
	RETURN 'none: ' || result;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''));
END
$$;
\pset format unaligned
-- bad requests
SELECT call, complaint(call) FROM (VALUES
	($$poll.rate_check(NULL)$$),
	($$poll.rate_check('')$$),
	($$poll.rate_check(repeat('x', 1024))$$),
	($$poll.rate_check(repeat('x', 1025))$$),
	($$poll.rate_check('ann', NULL)$$),
	($$poll.rate_check('ann', cost => NULL)$$),
	($$poll.rate_check('ann', cost => 0)$$),
	($$poll.rate_check('ann', cost => -2147483648)$$),
	($$poll.rate_check('ann', cost => 4)$$),
	($$poll.rate_check('ann', 'search', cost => 4)$$),
	($$poll.rate_peek(NULL)$$),
	($$poll.rate_peek('ann', cost => 4)$$),
	($$poll.rate_reset(NULL)$$),
	($$poll.rate_reset('ann', NULL)$$)) AS v (call);
-- bad policies
SELECT call, complaint(call) FROM (VALUES
	($$poll.set_rate_policy(NULL, 1, '1 s')$$),
	($$poll.set_rate_policy('', 1, '1 s')$$),
	($$poll.set_rate_policy(repeat('x', 64), 1, '1 s')$$),
	($$poll.set_rate_policy('a"b', 1, '1 s')$$),
	($$poll.set_rate_policy('caf\u00e9', 1, '1 s')$$),
	($$poll.set_rate_policy(U&'caf\00e9', 1, '1 s')$$),
	($$poll.set_rate_policy('bad', NULL, '1 s')$$),
	($$poll.set_rate_policy('bad', 0, '1 s')$$),
	($$poll.set_rate_policy('bad', -5, '1 s')$$),
	($$poll.set_rate_policy('bad', 100000001, '1 s')$$),
	($$poll.set_rate_policy('bad', 1, NULL)$$),
	($$poll.set_rate_policy('bad', 1, '0 s')$$),
	($$poll.set_rate_policy('bad', 1, '-1 s')$$),
	($$poll.set_rate_policy('bad', 1, '1.5 ms')$$),
	($$poll.set_rate_policy('bad', 1, '1 day 1 ms')$$),
	($$poll.set_rate_policy('bad', 1, '24:00:01')$$),
	($$poll.set_rate_policy('bad', 1, '1 month')$$),
	($$poll.set_rate_policy('bad', 1, '2 days -24 hours')$$),
	($$poll.set_rate_policy('bad', 1, '1 s', 'leaky')$$),
	($$poll.set_rate_policy('bad', 1, '1 s', NULL)$$),
	($$poll.set_rate_policy('bad', 1, '1 s', 'window', 5)$$),
	($$poll.set_rate_policy('bad', 1, '1 s', 'gcra', 0)$$),
	($$poll.drop_rate_policy('bad')$$),
	($$poll.drop_rate_policy(NULL)$$)) AS v (call);
\pset format aligned
DROP FUNCTION complaint(text);
BEGIN READ ONLY;
SELECT poll.set_rate_policy('bad', 1, '1 s');
ROLLBACK;

-- the largest and the smallest
SET poll_ext.debug_rate_clock = 2000;
SELECT poll.set_rate_policy('large', 100000000, '1 day');
SELECT * FROM poll.rate_check('ann', 'large', 100000000);
SELECT * FROM poll.rate_check('ann', 'large', 100000000);
SELECT poll.set_rate_policy('large', 100000000, '1 day', 'gcra');
SELECT * FROM poll.rate_check('ann', 'large', 100000000);
SELECT * FROM poll.rate_check('ann', 'large', 100000000);
SELECT poll.set_rate_policy('small', 1, '1 ms');
SELECT * FROM poll.rate_check('ann', 'small');
SET poll_ext.debug_rate_clock = 1e9;
SELECT * FROM poll.rate_check('ann', 'large', 100000000);

-- clients by address
SELECT address, poll.client_network(address)
  FROM unnest('{192.0.2.1, 192.0.2.1/8, 0.0.0.0, ::ffff:192.0.2.1, ::ffff:192.0.2.1/96, 2001:db8:1:2:3:4:5:6,
	2001:db8:1:2:ffff::1, ::1, ::192.0.2.1, NULL}'::inet[]) AS address;
SET poll_ext.client_ipv4_prefix = 24;
SET poll_ext.client_ipv6_prefix = 56;
SELECT poll.client_network('192.0.2.1'), poll.client_network('::ffff:192.0.2.1'), poll.client_network('2001:db8:1:2ff::1');
SET poll_ext.client_ipv4_prefix = 0;
SET poll_ext.client_ipv6_prefix = 128;
SELECT poll.client_network('192.0.2.1'), poll.client_network('2001:db8:1:2ff::1');
RESET poll_ext.client_ipv4_prefix;
RESET poll_ext.client_ipv6_prefix;

-- no business of everybody
CREATE ROLE rate_user;
GRANT SELECT ON poll.stat_rate TO rate_user;
SET ROLE rate_user;
SELECT poll.rate_check('ann');
SELECT poll.rate_peek('ann');
SELECT poll.rate_reset('ann');
SELECT poll.set_rate_policy('mine', 1, '1 s');
SELECT poll.drop_rate_policy('export');
SELECT * FROM poll.stat_rate;
SELECT * FROM poll.rate_policy;
SET poll_ext.client_ipv6_prefix = 128;
SET poll_ext.debug_rate_clock = 0;
SELECT count(*) > 0 AS policies FROM poll.rate_policies;
SELECT poll.client_network('192.0.2.1');
RESET ROLE;
GRANT EXECUTE ON FUNCTION poll.rate_check, poll.set_rate_policy TO rate_user;
SET ROLE rate_user;
SELECT allowed FROM poll.rate_check('ann');
SELECT poll.set_rate_policy('mine', 1, '1 s');
RESET ROLE;
REVOKE SELECT ON poll.stat_rate FROM rate_user;
GRANT pg_monitor TO rate_user;
SET ROLE rate_user;
SELECT count(*) > 0 AS statistics FROM poll.stat_rate;
RESET ROLE;
DROP OWNED BY rate_user;
DROP ROLE rate_user;

SELECT poll.drop_rate_policy(endpoint) FROM poll.rate_policies;
SELECT * FROM poll.stat_rate;
SELECT * FROM poll.rate_check('ann');
