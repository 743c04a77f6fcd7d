# Nothing lives in a session: writers and pollers behind pgbouncer, in transaction
# mode, while the log is trimmed.
#
# POLL_TEST_DURATION	seconds, 25 by default
# POLL_TEST_SEED		to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollPooler;
use PollStress;
use PollTest;
use Test::More;

skip_without_pooler();

my $node = new_node('pooled');
my $pooler = start_pooler($node, 10);
my ($one, $two) = map { connect_to($pooler) } 1 .. 2;

sub pid { return fetch_value($_[0], 'SELECT pg_backend_pid()'); }

# ---- two clients in one session, and one client in two ----

sub keys_of { return join ' ', map { $_->{key}{id} } @{ $_[0]{changes}{things} }; }

$one->do('CREATE TABLE things (id int PRIMARY KEY)');
$one->do(q(SELECT poll.track('things')));
my $mirror = PollMirror->new('things');
$mirror->drain($one, 10);
is(pid($one), pid($two), 'two clients share a session');

$one->do('BEGIN; INSERT INTO things VALUES (1); SAVEPOINT s; INSERT INTO things VALUES (2)');
my $session = pid($one);
isnt(pid($two), $session, 'unless the other is in a transaction');
is(keys_of($mirror->poll($two, 10)), '', 'who polls in another session does not get what is not committed');
$one->do('ROLLBACK');
$two->do('INSERT INTO things VALUES (3)');
is(keys_of($mirror->poll($one, 10)), '3', 'nor what was rolled back, nor does it come with what is committed next');

$two->do('INSERT INTO things SELECT g FROM generate_series(11, 15) AS g');
is(keys_of($mirror->poll($one, 2)), '11 12', 'a page is cut in one session');
$one->do('BEGIN');
$one->do('SELECT 1');
is(keys_of($mirror->poll($two, 2)), '13 14', 'and goes on in another one');
is(keys_of($mirror->poll($one, 2)), '15', 'or within a transaction');
$one->do('ROLLBACK');
$_->disconnect foreach $one, $two;

# ---- all at once ----

my $watch = start_child('watch', sub {
	my $db = connect_to($node);
	my $most = 0;

	wait_for($db, q(SELECT to_regclass('items') IS NOT NULL));
	foreach (1 .. 20)
	{
		my $n = fetch_value($db, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'));

		$most = $n if $n > $most;
		select undef, undef, undef, 0.2;
	}
	return $most;
});
my $duration = $ENV{POLL_TEST_DURATION} // 25;
my ($steps) = stress($node, random_seed(), $duration, clients => $pooler, retention => 0.5);
note 'steps: ' . writer_summary($steps);
cmp_ok($steps->{emptied}, '>', $duration / 5, 'segments were emptied all the time');
my ($sessions) = finish_children($watch);
cmp_ok($sessions, '<=', 10 + 3, 'eight writers and four pollers with two connections each were in ten sessions');
$pooler->stop;

done_testing();
