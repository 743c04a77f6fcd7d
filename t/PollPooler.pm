# pgbouncer in front of a server, in transaction mode: what is called a connection
# is another session in each transaction.  connect_to() takes it for a node.

package PollPooler;

use strict;
use warnings;

use Exporter 'import';
use PollTest;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(start_pooler skip_without_pooler);

# Debian has it where users do not look.
my ($program) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin';

sub skip_without_pooler
{
	plan skip_all => 'there is no pgbouncer' if !$program;
	return;
}

# Starts one with so many sessions.  The log is in {log}.
sub start_pooler
{
	my ($node, $sessions) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir_short();
	my $user = getpwuid $<;

	append_to_file("$folder/users", qq("$user" ""\n));
	append_to_file("$folder/ini", sprintf <<'INI', $node->host, $node->port, $folder, port(), $folder, $sessions);
[databases]
postgres = host=%s port=%d
[pgbouncer]
listen_addr =
unix_socket_dir = %s
listen_port = %d
auth_type = trust
auth_file = %s/users
pool_mode = transaction
default_pool_size = %d
max_client_conn = 100
# sessions come and go
server_lifetime = 3
INI
	my $self = start_program(PostgreSQL::Test::Utils::tempdir() . '/pgbouncer.log',
		sub { -S "$folder/.s.PGSQL." . port() }, $program, "$folder/ini");
	$self->{folder} = $folder;
	return bless $self;
}

sub host { return $_[0]{folder}; }
sub port { return 6432; }

sub stop
{
	my ($self) = @_;

	kill 'INT', $self->{pid};
	wait_for_end($self);
	return;
}

1;
