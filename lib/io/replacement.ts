import { randomBytes } from 'node:crypto';
import { open, rename, rm, type FileHandle } from 'node:fs/promises';

/**
 * A file that takes the place of `path` only once it is whole: it is written beside it under another name, brought to the
 * disk, and renamed. Whoever opens `path` meanwhile finds what was there before; a crash leaves the other name behind.
 */
export class Replacement {
  readonly #path: string;
  readonly #temporary: string;
  readonly #handle: FileHandle;
  #ended = false;

  private constructor(path: string, temporary: string, handle: FileHandle) {
    this.#path = path;
    this.#temporary = temporary;
    this.#handle = handle;
  }

  static async open(path: string): Promise<Replacement> {
    const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
    return new Replacement(path, temporary, await open(temporary, 'wx'));
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.#handle.write(
        bytes,
        done,
        Math.min(bytes.length - done, 2 ** 30),
        offset + done,
      );
      done += bytesWritten;
    }
  }

  /** Takes the path's place. */
  async commit(): Promise<void> {
    try {
      await this.#handle.sync();
      await this.#handle.close();
      await rename(this.#temporary, this.#path);
      this.#ended = true;
    } catch (error) {
      await this.discard();
      throw error;
    }
  }

  /** Leaves the path as it was. */
  async discard(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#handle.close().catch(() => undefined);
    await rm(this.#temporary, { force: true });
  }
}
