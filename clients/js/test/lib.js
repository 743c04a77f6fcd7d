// What the tests share that need a server: each file makes a database of its own, on
// the server that PG* say, and a gateway in front of it.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const folder = fileURLToPath(new URL('..', import.meta.url));
const run = promisify(execFile);

/** How to start Chromium so that it talks to nobody else */
export const browserOptions = {
	executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
	args: [
		...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
		...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
	],
};

async function psql(...args) {
	const { stdout } = await run('psql', ['-XqAt', '-v', 'ON_ERROR_STOP=1', ...args]);
	return stdout.trim();
}

/** A gateway, with the files of a folder. Port 0: any. */
export class Gateway {
	static async start(database, port = 0, files = folder) {
		const gateway = new Gateway();
		gateway.process = spawn(
			process.env.POLL_GATEWAY_BIN,
			[
				...['--listen', `127.0.0.1:${port}`, '--static', files],
				...['--function', 'api.save_task', '--function', 'api.delete_task'],
				...['--dbname', `dbname=${database} user=demo_web`],
			],
			{ stdio: ['ignore', 'inherit', 'pipe'] },
		);
		for await (const line of createInterface({ input: gateway.process.stderr })) {
			gateway.base = line.match(/listening on (http:\S+)/)?.[1];
			if (gateway.base) break;
		}
		if (!gateway.base) throw new Error('the gateway does not start');
		gateway.process.stderr.resume();
		gateway.port = Number(new URL(gateway.base).port);
		return gateway;
	}

	async stop() {
		if (this.process.exitCode !== null || this.process.signalCode !== null) return;
		this.process.kill();
		await once(this.process, 'exit');
	}

	/** How many requests it holds */
	async waiting() {
		const metrics = await (await fetch(`${this.base}/metrics`)).text();
		return Number(metrics.match(/^poll_gateway_waiting_clients (\d+)$/m)[1]);
	}

	/** What a function of schema api returns */
	async call(name, task) {
		const response = await fetch(`${this.base}/rpc/${name}`, {
			method: 'POST',
			headers: { 'Content-Type': 'application/json' },
			body: JSON.stringify(task),
		});
		const result = await response.json();
		if (!response.ok) throw new Error(result.detail);
		return result;
	}
}

/** A database with the demo's tables, without a rate limit */
export class Database {
	static async create(name) {
		const database = new Database();
		database.name = `poll_ext_js_${name}_${process.pid}`;
		await psql('-c', `CREATE DATABASE ${database.name}`);
		await database.sql('CREATE EXTENSION poll_ext');
		await psql('-d', database.name, '-f', `${folder}demo/schema.sql`);
		await database.sql("SELECT poll.drop_rate_policy('poll')");
		return database;
	}

	sql(statement) {
		return psql('-d', this.name, '-c', statement);
	}

	/** If not, those that there are end. */
	async allowConnections(allow) {
		await psql('-c', `ALTER DATABASE ${this.name} ALLOW_CONNECTIONS ${allow}`);
		if (!allow) await psql('-c', `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${this.name}'`);
	}

	drop() {
		return psql('-c', `DROP DATABASE ${this.name} WITH (FORCE)`);
	}
}

/** Waits until the condition holds; fails after ten seconds. */
export async function until(what, condition) {
	for (const end = Date.now() + 10000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 20)))
		if (await condition()) return;
	throw new Error(`it did not come to this: ${what}`);
}
