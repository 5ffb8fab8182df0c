/** The threads that 'surprisal eval' reads and counts large files with. */
import { Worker } from 'node:worker_threads';
import type { Collected, Failure, Reply, Request, ThreadData } from './counting_thread.js';
import type { Range } from './counter.js';

class CountingThread {
  readonly #worker: Worker;
  #settle: { resolve(reply: Reply): void; reject(error: Error): void } | undefined;

  constructor(data: ThreadData) {
    this.#worker = new Worker(new URL('./counting_thread.js', import.meta.url), { workerData: data });
    this.#worker.on('message', (reply: Reply) => this.#settle?.resolve(reply));
    this.#worker.on('error', (error) => this.#settle?.reject(error));
    this.#worker.on('exit', () => this.#settle?.reject(new Error('a thread of the evaluation has ended')));
  }

  async ask(request: Request): Promise<Reply> {
    const reply = await new Promise<Reply>((resolve, reject) => {
      this.#settle = { resolve, reject };
      this.#worker.postMessage(request);
    });
    if (reply.failure !== undefined) throw errorOf(reply.failure);
    return reply;
  }

  async end(): Promise<void> {
    this.#settle = undefined;
    await this.#worker.terminate();
  }
}

const errorOf = ({ message, ...rest }: Failure): Error => Object.assign(new Error(message), rest);

export class CountingThreads implements AsyncDisposable {
  readonly #threads: readonly CountingThread[];

  constructor(count: number, data: ThreadData) {
    this.#threads = Array.from({ length: count }, () => new CountingThread(data));
  }

  /**
   * Counts ranges until there is none, each on the thread that is free first. All that were begun have ended when it
   * settles. Throws the error of the first range in order that has one.
   *
   * @param next the next range; undefined where there is none now
   * @param counted called where one was counted, with the time that it took, in ms
   */
  async count(
    next: () => (Range & { rowsPerBlock: number }) | undefined,
    counted: (range: Range, time: number) => void,
  ): Promise<void> {
    let begun = 0;
    const failures: { readonly order: number; readonly error: unknown }[] = [];
    const work = async (thread: CountingThread) => {
      for (let range; failures.length === 0 && (range = next()) !== undefined;) {
        const order = begun++;
        const start = performance.now();
        try {
          await thread.ask(range);
          counted(range, performance.now() - start);
        } catch (error) {
          failures.push({ order, error });
        }
      }
    };
    await Promise.all(this.#threads.map(work));
    const [first] = failures.sort((a, b) => a.order - b.order);
    if (first !== undefined) throw first.error;
  }

  /** What the threads counted since this was last asked. */
  async collect(): Promise<Collected[]> {
    const replies = await Promise.all(this.#threads.map((thread) => thread.ask('collect')));
    return replies.map((reply) => reply.collected!);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.end()));
  }
}
