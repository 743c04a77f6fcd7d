# nginx in front of a gateway, configured as examples/nginx/poll.conf says.  A client
# of it is one of the gateway.

package PollNginx;

use strict;
use warnings;

use Exporter 'import';
use PollGateway;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(start_nginx skip_without_nginx);
our @ISA = qw(PollGateway);

# Debian has it where users do not look.
my ($program) = grep { -x } map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin';

sub skip_without_nginx
{
	plan skip_all => 'there is no nginx' if !$program;
	return;
}

# What the example says of the system, said of this folder.
sub example
{
	my ($folder, $port, $gateway) = @_;
	my $text = slurp_file('examples/nginx/poll.conf');

	foreach ([ 'listen 80;', "listen 127.0.0.1:$port;" ], [ '127.0.0.1:8080', "127.0.0.1:$gateway->{port}" ],
		[ '/var/cache/nginx/poll', "$folder/cache" ])
	{
		my ($from, $to) = @$_;
		$text =~ s/\Q$from\E/$to/ or die "the example has no $from";
	}
	return $text;
}

sub start_nginx
{
	my ($gateway) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir();
	my $port = PostgreSQL::Test::Cluster::get_free_port();

	append_to_file("$folder/poll.conf", example($folder, $port, $gateway));
	append_to_file("$folder/nginx.conf", join "\n", 'daemon off;', 'worker_processes 2;', "pid $folder/pid;",
		'events {}', 'http {', 'access_log off;', "include $folder/poll.conf;",
		(map { "${_}_temp_path $folder/$_;" } qw(client_body proxy fastcgi uwsgi scgi)), '}');
	my $self = start_program("$folder/error.log", sub { -s "$folder/pid" }, $program, '-p', $folder, '-c', "$folder/nginx.conf", '-e', 'stderr');
	$self->{port} = $port;
	return bless $self;
}

sub stop
{
	my ($self) = @_;

	kill 'TERM', $self->{pid};
	is(wait_for_end($self), 0, 'nginx ends well');
	# a file that is replaced by one with a longer header just before it is read is a miss
	my $trouble = join "\n", grep { !/has too long header/ } $self->log =~ /^(.*\[(?:alert|emerg|crit)\].*)$/mg;
	is($trouble, '', 'and had no trouble');
	return;
}

1;
