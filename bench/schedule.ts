/** Shares the time of a run out among its parts. */

import type { RoundLimits } from './measure.js';

export interface Task {
  readonly title: string;
  /** Its share of the time, next to the other tasks'. */
  readonly weight: number;
  run(limits: RoundLimits): Promise<void>;
}

export interface ScheduleOptions {
  /** Nanoseconds, for all tasks with their preparations. */
  readonly budget: number;
  readonly minRounds: number;
  readonly maxRounds: number;
  readonly precision: number;
}

/**
 * Runs tasks one after the other. What a task does not use of its share, because its figures are known well enough,
 * the later ones have.
 */
export async function runTasks(
  tasks: readonly Task[],
  { budget, ...limits }: ScheduleOptions,
  onStart: (task: Task, index: number) => void,
): Promise<void> {
  const start = process.hrtime.bigint();
  let weights = tasks.reduce((sum, { weight }) => sum + weight, 0);
  for (const [index, task] of tasks.entries()) {
    onStart(task, index);
    const left = Math.max(0, budget - Number(process.hrtime.bigint() - start));
    await task.run({ ...limits, budget: (left * task.weight) / weights });
    weights -= task.weight;
  }
}
