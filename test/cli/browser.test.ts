import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { temporaryFolder } from '../io/files.js';
import { Browser, findBrowser } from '../support/browser.js';
import { output, writeBatch } from './command.js';

/** What a person would see in the page. */
interface Look {
  readonly title: string;
  readonly overflow: number;
  readonly background: string;
  readonly colour: string;
  readonly sections: readonly { readonly id: string; readonly height: number }[];
  /** Words of a chart that stand on one another, or out of it. */
  readonly collisions: readonly string[];
  readonly bars: number;
}

const look = `(() => {
  const collisions = [];
  for (const svg of document.querySelectorAll('svg')) {
    const frame = svg.getBoundingClientRect();
    const words = [...svg.querySelectorAll('text')].filter((t) => t.textContent !== '')
      .map((t) => [t.textContent, t.getBoundingClientRect()]);
    words.forEach(([text, a], i) => {
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1 || a.bottom > frame.bottom + 1)
        collisions.push(text + ' is cut off');
      for (const [other, b] of words.slice(i + 1))
        if (a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
          collisions.push(text + ' and ' + other);
    });
  }
  const style = getComputedStyle(document.body);
  return {
    title: document.title,
    overflow: document.documentElement.scrollWidth - innerWidth,
    background: style.backgroundColor,
    colour: style.color,
    sections: [...document.querySelectorAll('section')].map((s) => ({ id: s.id, height: s.getBoundingClientRect().height })),
    collisions,
    bars: document.querySelectorAll('svg .b').length,
  };
})()`;

/** WCAG's relative luminance of an rgb() colour. */
const luminance = (colour: string): number =>
  /\d+, \d+, \d+/
    .exec(colour)![0]
    .split(', ')
    .map((part) => Number(part) / 255)
    .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, i) => sum + [0.2126, 0.7152, 0.0722][i]! * x, 0);

describe('the report in a browser', () => {
  const path = temporaryFolder();
  let browser: Browser | undefined;
  const reports: string[] = [];

  before(async function () {
    const program = findBrowser();
    if (program === undefined) {
      const missing = 'no Chromium here: apt-get install chromium, or its path in CHROMIUM';
      if (process.env['CI'] === 'true') assert.fail(missing);
      process.stdout.write(`    ${missing}\n`);
      this.skip();
    }
    for (const [name, rows, classes] of [
      ['few', 3000, 4],
      ['many', 20_000, 120],
    ] as const) {
      const files = [path(`${name}.npy`), path(`${name}-labels.npy`)] as const;
      await writeBatch(...files, rows, classes, classes);
      const report = path(`${name}.html`);
      const more = name === 'many' ? files : [];
      output('eval', ...files, ...more, '--loss', 'label-smoothing', '--html', report);
      reports.push(report);
    }
    browser = await Browser.open(program);
  });
  after(() => browser?.[Symbol.asyncDispose]());

  for (const [width, scheme] of [
    [1280, 'light'],
    [1280, 'dark'],
    [390, 'light'],
    [390, 'dark'],
  ] as const) {
    it(`has no error, and everything in its place, ${width} pixels wide and ${scheme}`, async () => {
      for (const report of reports) {
        const url = pathToFileURL(report).href;
        await browser!.visit(url, width, 900, scheme);
        const seen = (await browser!.evaluate(look)) as Look;
        assert.match(seen.title, /^Evaluation of (few|many)\.npy/);
        assert.deepEqual(seen.collisions, []);
        assert.ok(seen.overflow <= 0, `${seen.overflow} pixels wider than the window`);
        const ids = seen.sections.map(({ id }) => id);
        for (const id of ['reliability', 'losses', 'worst', 'confused', 'all'])
          assert.ok(ids.includes(id), id);
        for (const { id, height } of seen.sections) assert.ok(height > 60, `${id} is ${height} pixels high`);
        assert.ok(seen.bars > 10);
        const [page, text] = [luminance(seen.background), luminance(seen.colour)];
        assert.ok(scheme === 'light' ? page > 0.8 : page < 0.05, seen.background);
        const contrast = (Math.max(page, text) + 0.05) / (Math.min(page, text) + 0.05);
        // WCAG's AAA.
        assert.ok(contrast >= 7, `a contrast of ${contrast}`);

        const errors = browser!.events.filter(({ method }) =>
          [
            'Runtime.exceptionThrown',
            'Runtime.consoleAPICalled',
            'Log.entryAdded',
            'Network.loadingFailed',
          ].includes(method),
        );
        assert.deepEqual(errors, []);
        const requests = browser!.events
          .filter(({ method }) => method === 'Network.requestWillBeSent')
          .map(({ params }) => (params['request'] as { url: string }).url);
        assert.deepEqual(
          requests.filter((requested) => requested !== url && !requested.startsWith('data:')),
          [],
          'what it loads',
        );
      }
    });
  }

  it('finds errors where there are some', async () => {
    const broken = path('broken.html');
    writeFileSync(broken, '<!doctype html><title>x</title><img src="missing.png"><script>missing()</script>');
    await browser!.visit(pathToFileURL(broken).href, 800, 600, 'light');
    const methods = browser!.events.map(({ method }) => method);
    assert.ok(methods.includes('Runtime.exceptionThrown'));
    assert.ok(methods.includes('Network.loadingFailed'));
  });
});
