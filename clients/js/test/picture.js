// Takes the picture of the demo page in docs/: two minutes of adaptive polling, with
// two bursts of changes. With the environment of test/run:
//
//	node test/picture.js FILE.png

import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';
import { Database, Gateway, browserOptions } from './lib.js';

const database = await Database.create('picture');
const gateway = await Gateway.start(database.name);
const browser = await chromium.launch(browserOptions);
try {
	const page = await browser.newPage({ viewport: { width: 1180, height: 700 }, deviceScaleFactor: 1.5 });
	await page.goto(`${gateway.base}/demo/`);
	for (const [pause, changes] of [[45, 8], [40, 3], [25, 0]]) {
		await sleep(pause * 1000);
		for (let i = 0; i < changes; i++, await sleep(700))
			await gateway.call('save_task', { id: 1 + (i % 3), done: i % 2 === 0 });
	}
	await page.locator('body').click({ position: { x: 1, y: 1 } });
	await page.screenshot({ path: process.argv[2], fullPage: true });
} finally {
	await browser.close();
	await gateway.stop();
	await database.drop();
}
