# The clients of bench/when: in one process, each with its connection to the gateway,
# while rows are written at random times.
#
#	when_clients.pl ADDRESS MODE RATE FASTER SECONDS CLIENTS
#
# RATE changes a second.  The clock runs FASTER times as fast: all intervals are as many
# times shorter.  The time that a change waits until a poll is due is multiplied again;
# that from there to the answer is not.
#
# Prints, for each client and hour of that clock: requests, mean delay of a change, its
# 99th percentile (seconds), CPU time of the gateway and its sessions (ms), kB.

use strict;
use warnings;

use DBI;
use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

my $FIXED = 5;     # seconds between polls
my $WAIT = 25;     # seconds that a long poll may wait

my ($address, $mode, $rate, $faster, $seconds, $count) = @ARGV;
my $db = DBI->connect('dbi:Pg:', undef, undef, { RaiseError => 1 });
my $insert = $db->prepare(q(INSERT INTO messages (author, body) VALUES ('ann', repeat('x', 100)) RETURNING id));
my $hint = $db->prepare(q(SELECT poll.interval_hint('{messages}')));
my $json = JSON::PP->new;
my $path = '/poll?feeds=messages' . ($mode eq 'long' ? '&wait=' . $WAIT / $faster : '');

my (%written, @delays);
my ($measuring, $requests, $bytes) = (0, 0, 0);

# ---- the server ----

sub server_cpu
{
	my %cpu;

	foreach my $pid (@_, @{ $db->selectcol_arrayref(q(SELECT pid FROM pg_stat_activity WHERE usename = 'gateway')) })
	{
		foreach my $file (glob "/proc/$pid/task/*/schedstat")
		{
			open my $in, '<', $file or next;
			$cpu{$pid} += (split ' ', readline $in)[0] / 1e6;
		}
	}
	return \%cpu;
}

# ---- a client ----

sub start
{
	my ($at) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $address) // die "cannot connect: $@";

	setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
	return { socket => $socket, next => $at, cursor => 'now', text => '' };
}

sub request
{
	my ($client) = @_;
	my $text = "GET $path&cursor=$client->{cursor} HTTP/1.1\r\nHost: bench\r\n";

	$text .= "If-None-Match: $client->{tag}\r\n" if $client->{tag} && $mode ne 'fixed';
	$text .= "\r\n";
	syswrite($client->{socket}, $text) == length $text or die "cannot send: $!";
	$client->{due} = $client->{next};
	$client->{next} = undef;
	($requests, $bytes) = ($requests + 1, $bytes + length $text) if $measuring;
	return;
}

# When the next poll is due after an answer.
sub next_poll
{
	my ($client, $now) = @_;

	return $now if $mode eq 'long';
	return $client->{due} + $FIXED / $faster if $mode ne 'adaptive';

	# as X-Poll-Interval, in whole seconds of the clock
	$hint->execute;
	my $interval = sprintf '%.0f', $hint->fetchall_arrayref->[0][0] =~ /^(\d+):(\d+):([\d.]+)$/ ? ($1 * 3600 + $2 * 60 + $3) * $faster : die 'no interval';
	return $now + ($interval > 1 ? $interval : 1) / $faster;
}

sub note_change
{
	my ($client, $id, $now) = @_;
	my $written = $written{$id} // return;
	my $waited = $client->{due} > $written ? $client->{due} - $written : 0;

	push @delays, $waited * $faster + $now - $written - $waited;
	return;
}

sub receive
{
	my ($client) = @_;

	sysread($client->{socket}, $client->{text}, 65536, length $client->{text}) or die 'the gateway has closed a connection';
	my $now = time;
	return if $client->{text} !~ /^HTTP\/1\.1 (\d+) .*?\r\n\r\n/s;
	my ($status, $size) = ($1, $+[0]);
	my $head = substr $client->{text}, 0, $size;
	my $length = $status != 304 && $head =~ /^Content-Length: (\d+)\r$/mi ? $1 : 0;
	return if length $client->{text} < $size + $length;
	my $body = substr $client->{text}, $size, $length;

	$bytes += $size + $length if $measuring;
	$client->{text} = '';
	die "status $status: $body" if $status != 200 && $status != 304;
	if ($status == 200)
	{
		my $answer = $json->decode($body);

		note_change($client, $_->{key}{id}, $now) foreach @{ $answer->{changes}{messages} };
		# the tag is that of an empty answer, if the cursor stays
		$client->{tag} = $answer->{cursor} eq $client->{cursor} ? ($head =~ /^ETag: (.*)\r$/mi)[0] : undef;
		$client->{cursor} = $answer->{cursor};
	}
	$client->{next} = next_poll($client, $now);
	return;
}

# ---- all of them ----

my ($gateway) = map { /^(\d+)$/ } $ENV{GATEWAY_PID};
my $start = time;
my @clients = map { start($start + rand() * $FIXED / $faster) } 1 .. $count;
my %by_socket = map { fileno($_->{socket}) => $_ } @clients;
my $select = IO::Select->new(map { $_->{socket} } @clients);
my $begin = $start + 1 + $FIXED / $faster;
my $end = $begin + $seconds;
my $next_write = $start;
my $before;
# what is written later may not be heard of before the end
my $longest = $rate < 0.1 ? 60 : 2 * $FIXED;

srand 1;
while ((my $now = time) < $end)
{
	if (!$measuring && $now >= $begin)
	{
		$measuring = 1;
		$before = server_cpu($gateway);
	}
	if ($now >= $next_write)
	{
		$insert->execute;
		my $id = $insert->fetchall_arrayref->[0][0];
		$written{$id} = $now if $measuring && $now < $end - $longest / $faster;
		$next_write += -log(1 - rand) / $rate / $faster;
	}
	request($_) foreach grep { defined $_->{next} && $_->{next} <= $now } @clients;
	my ($wake) = sort { $a <=> $b } $end, $next_write, grep { defined } map { $_->{next} } @clients;
	my $wait = $wake - time;
	receive($by_socket{ fileno $_ }) foreach $select->can_read($wait > 0 ? $wait : 0);
}
my $after = server_cpu($gateway);
my $cpu = 0;
$cpu += $after->{$_} - ($before->{$_} // 0) foreach keys %$after;
my $hours = $count * $seconds * $faster / 3600;
my $sum = 0;
$sum += $_ foreach @delays;
@delays = sort { $a <=> $b } @delays;
die sprintf '%d changes, and the clients have heard of %d', $count * keys %written, scalar @delays
  if !@delays || @delays < 0.98 * $count * keys %written;
printf "%.0f %.6f %.6f %.2f %.1f\n", $requests / $hours, $sum / @delays, $delays[ $#delays * 0.99 ], $cpu / $hours, $bytes / 1024 / $hours;
