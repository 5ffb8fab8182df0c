/** A headless Chromium, by its DevTools protocol over pipes (chromedevtools.github.io/devtools-protocol). */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

const names = ['chromium', 'chromium-browser', 'google-chrome', 'chrome'];

/** A sanitizer's library, which the tests may run with, is not for it. */
const env = { ...process.env, LD_PRELOAD: '' };

/** The program, or undefined where there is none. */
export function findBrowser(): string | undefined {
  const given = process.env['CHROMIUM'];
  return (given === undefined ? names : [given]).find(
    (name) => spawnSync(name, ['--version'], { stdio: 'ignore', env }).status === 0,
  );
}

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly result?: unknown;
  readonly error?: { readonly message: string };
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

export class Browser implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #profile = mkdtempSync(join(tmpdir(), 'surprisal-browser-'));
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #session: string | undefined;
  #calls = 0;
  /** Events of the page since it was last emptied. */
  readonly events: { readonly method: string; readonly params: Readonly<Record<string, unknown>> }[] = [];

  private constructor(program: string) {
    // Root has no sandbox; /dev/shm is small in containers.
    const args = ['--headless', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--no-first-run'];
    this.#process = spawn(program, [...args, '--remote-debugging-pipe', `--user-data-dir=${this.#profile}`], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
      env,
    });
    this.#ended = new Promise((resolve) => {
      this.#process.on('close', () => {
        for (const pending of this.#pending.values()) pending.reject(new Error('the browser has ended'));
        this.#pending.clear();
        resolve();
      });
    });
    let text = '';
    (this.#process.stdio[4] as Readable).setEncoding('utf8').on('data', (part: string) => {
      const messages = (text + part).split('\0');
      text = messages.pop()!;
      for (const message of messages) this.#take(JSON.parse(message) as Message);
    });
  }

  /** A browser with an empty page. */
  static async open(program: string): Promise<Browser> {
    const browser = new Browser(program);
    const { targetId } = (await browser.send('Target.createTarget', { url: 'about:blank' })) as {
      targetId: string;
    };
    const attached = await browser.send('Target.attachToTarget', { targetId, flatten: true });
    browser.#session = (attached as { sessionId: string }).sessionId;
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await browser.send(`${domain}.enable`);
    return browser;
  }

  #take({ id, method, params = {}, result, error }: Message): void {
    if (id === undefined) {
      this.events.push({ method: method!, params });
      return;
    }
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (error === undefined) pending?.resolve(result);
    else pending?.reject(new Error(error.message));
  }

  send(method: string, params: object = {}): Promise<unknown> {
    const id = ++this.#calls;
    const session = this.#session === undefined ? {} : { sessionId: this.#session };
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      (this.#process.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    });
  }

  /** Opens a page, in a window of this size and a colour scheme, and waits until it is loaded. */
  async visit(url: string, width: number, height: number, scheme: 'light' | 'dark'): Promise<void> {
    await this.send('Emulation.setDeviceMetricsOverride', {
      ...{ width, height, deviceScaleFactor: 1, mobile: width < 600 },
    });
    await this.send('Emulation.setEmulatedMedia', {
      features: [{ name: 'prefers-color-scheme', value: scheme }],
    });
    this.events.length = 0;
    await this.send('Page.navigate', { url });
    await this.evaluate(
      `new Promise((resolve) => document.readyState === 'complete' ? resolve() : addEventListener('load', resolve))`,
    );
  }

  /** The value of an expression in the page. */
  async evaluate(expression: string): Promise<unknown> {
    const { result, exceptionDetails } = (await this.send('Runtime.evaluate', {
      ...{ expression, awaitPromise: true, returnByValue: true },
    })) as { result: { value?: unknown }; exceptionDetails?: { text: string; exception?: object } };
    if (exceptionDetails === undefined) return result.value;
    throw new Error(`${exceptionDetails.text} ${JSON.stringify(exceptionDetails.exception)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#session = undefined;
    await this.send('Browser.close').catch(() => undefined);
    await this.#ended;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
