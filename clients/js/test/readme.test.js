// What README.md shows, as it is written there, against the gateway

import assert from 'node:assert/strict';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Database, Gateway, browserOptions, until } from './lib.js';

const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
const examples = (language) => [...readme.matchAll(new RegExp('```' + language + '\n(.*?)```', 'gs'))].map(([, code]) => code);

let database;
let gateway;

before(async () => {
	database = await Database.create('readme');
	gateway = await Gateway.start(database.name);
	await database.sql(examples('sql')[1].replaceAll('poll_gateway', 'demo_web'));
});

after(async () => {
	await gateway?.stop();
	await database?.drop();
});

const inPage = (code) => code.includes("from './poll.js'");
const scripts = examples('js').filter((code) => !inPage(code));
const [showTasks, keepCursor] = examples('js').filter(inPage);

for (const [i, code] of scripts.entries())
	test(`script ${i + 1} of ${scripts.length}`, async (t) => {
		const file = new URL(`readme-${i}.tmp.js`, import.meta.url);
		t.mock.method(console, 'error');
		t.mock.method(console, 'log', () => {});
		await writeFile(file, code.replace('http://127.0.0.1:8080', gateway.base) + '\nexport { poller };\n');
		t.after(() => rm(file));
		const { poller } = await import(file);
		await until('it has polled', () => poller.cursor !== null && poller.state === 'waiting');
		await poller.stop();
		assert.equal(console.error.mock.callCount(), 0);
		if (code.includes('console.log')) assert.ok(console.log.mock.callCount() > 0);
	});

/** The page with a script, as the gateway serves it */
async function openPage(t, name, script) {
	const folder = await mkdtemp(join(tmpdir(), 'readme-'));
	t.after(() => rm(folder, { recursive: true }));
	await copyFile(new URL('../poll.js', import.meta.url), join(folder, 'poll.js'));
	await writeFile(join(folder, 'index.html'), examples('html')[0]);
	await writeFile(join(folder, 'tasks.js'), script);
	const server = await Gateway.start(name, 0, folder);
	t.after(() => server.stop());
	const browser = await chromium.launch(browserOptions);
	t.after(() => browser.close());
	const page = await browser.newPage();
	page.setDefaultTimeout(10000);
	await page.goto(server.base);
	return page;
}

test('the page, with the table and the grants', async (t) => {
	const minute = await Database.create('minute');
	t.after(() => minute.drop());
	await minute.sql('DROP TABLE tasks; REVOKE EXECUTE ON FUNCTION poll.respond FROM demo_web');
	await minute.sql(examples('sql')[0].replaceAll('poll_gateway', 'demo_web'));
	const page = await openPage(t, minute.name, showTasks);
	await page.locator('li', { hasText: 'Add a second task' }).waitFor();
	await minute.sql("INSERT INTO tasks (title) VALUES ('a new one')");
	await page.locator('li', { hasText: 'a new one' }).waitFor();
});

test('a page that keeps its cursor', async (t) => {
	const page = await openPage(t, database.name, keepCursor);
	const kept = (name) => page.evaluate((name) => localStorage.getItem(name), name);
	await until('the cursor is kept', async () => JSON.parse(await kept('tasks'))?.cursor);
	const count = await database.sql('SELECT count(*) FROM tasks');
	assert.equal(JSON.parse(await kept('tasks')).rows.length, Number(count));
	const next = page.waitForRequest((request) => new URL(request.url()).searchParams.has('cursor'));
	const { cursor } = JSON.parse(await kept('tasks'));
	await page.reload();
	assert.equal(new URL((await next).url()).searchParams.get('cursor'), cursor);
});
