/* A libnvidia-ml.so.1 without a GPU, for tests of the real ctypes path and of the installer.
 *
 * What it does is read, at every call, from the file that NVML_STUB_FILE names; without one, two GPUs are well. Lines:
 *
 *   count 2                         how many GPUs
 *   driver 580.82.07                the driver's version
 *   temperature.0 255               a value of GPU 0; also name, uuid, memory, free (bytes), power, limit, limit_min,
 *                                   limit_max (milliwatts), utilisation (percent), reasons (bits), target, target_min,
 *                                   target_max (degrees)
 *   compute.0 4242:1073741824,7:-   processes, as pid:bytes, "-" for bytes that are not told; also graphics
 *   limit_set.0 ignored             a limit is accepted and not taken; also target_set
 *   nvmlDeviceGetTemperature.1 15   a call of GPU 1 answers with this error of NVML's; without ".1", of every GPU
 *   once.nvmlDeviceGetTemperature 1 a   the next call answers with this error, those after it are well; "1 b": once more
 *   hang.nvmlDeviceGetTemperature /path/of/a/fifo   the call hangs until somebody has opened and closed the FIFO
 *   hang.nvmlDeviceGetTemperature 30                 or for so many seconds
 *
 * Compiled with -DOLD_DRIVER it lacks what came with drivers 510 and 535.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GPUS_MAX 16
#define LINE_MAX_BYTES 512
#define UNTOLD (~0ull)

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, INSUFFICIENT_SIZE = 7 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilisation_t;
typedef struct { unsigned int pid; unsigned long long memory; unsigned int gpu_instance, compute_instance; } process_t;

/* What was set, by GPU; 0: nothing yet. Handles point in here. */
static unsigned int limits[GPUS_MAX], targets[GPUS_MAX];

/* The value of a key, into `value`; 0 where the file does not say. */
static int told(const char *key, char *value) {
    const char *path = getenv("NVML_STUB_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[LINE_MAX_BYTES];
    size_t length = strlen(key);
    int found = 0;
    if (!file) return 0;
    while (!found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, key, length) == 0 && line[length] == ' ') {
            strcpy(value, line + length + 1);
            found = 1;
        }
    }
    fclose(file);
    return found;
}

static int told_of(const char *key, int gpu, char *value) {
    char whole[LINE_MAX_BYTES];
    snprintf(whole, sizeof whole, "%s.%d", key, gpu);
    return told(whole, value);
}

static unsigned long long number(const char *key, int gpu, unsigned long long otherwise) {
    char value[LINE_MAX_BYTES];
    return told_of(key, gpu, value) ? strtoull(value, NULL, 0) : otherwise;
}

static void hang(const char *call) {
    char key[LINE_MAX_BYTES], value[LINE_MAX_BYTES], byte;
    snprintf(key, sizeof key, "hang.%s", call);
    if (!told(key, value)) return;
    if (value[0] == '/') {
        int fifo = open(value, O_RDONLY);
        while (fifo >= 0 && read(fifo, &byte, 1) > 0) {}
        if (fifo >= 0) close(fifo);
    } else {
        sleep((unsigned int)strtoul(value, NULL, 10));
    }
}

/* What a call answers, before it does anything. */
static int answer(const char *call, int gpu) {
    static char served[LINE_MAX_BYTES];
    char key[LINE_MAX_BYTES], value[LINE_MAX_BYTES];
    hang(call);
    snprintf(key, sizeof key, "once.%s", call);
    if (told(key, value) && strcmp(value, served) != 0) {
        strcpy(served, value);
        return atoi(value);
    }
    if (gpu >= 0 && told_of(call, gpu, value)) return atoi(value);
    return told(call, value) ? atoi(value) : SUCCESS;
}

static int of(void *device) { return (int)((unsigned int *)device - limits); }

#define BEGIN(gpu) do { int code = answer(__func__, gpu); if (code != SUCCESS) return code; } while (0)

int nvmlInitWithFlags(unsigned int flags) { (void)flags; BEGIN(-1); return SUCCESS; }
int nvmlInit_v2(void) { BEGIN(-1); return SUCCESS; }
int nvmlShutdown(void) { BEGIN(-1); return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "an error of the stub"; }

int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    char value[LINE_MAX_BYTES];
    BEGIN(-1);
    snprintf(version, length, "%s", told("driver", value) ? value : "580.82.07");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    char value[LINE_MAX_BYTES];
    BEGIN(-1);
    *count = told("count", value) ? (unsigned int)atoi(value) : 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    if (index >= GPUS_MAX) return INVALID_ARGUMENT;
    BEGIN((int)index);
    *device = &limits[index];
    return SUCCESS;
}

int nvmlDeviceGetIndex(void *device, unsigned int *index) {
    BEGIN(of(device));
    *index = (unsigned int)of(device);
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    char value[LINE_MAX_BYTES];
    BEGIN(of(device));
    const char *usual = of(device) ? "NVIDIA GeForce RTX 3060" : "NVIDIA GeForce RTX 4090";
    snprintf(name, length, "%s", told_of("name", of(device), value) ? value : usual);
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
    char value[LINE_MAX_BYTES];
    BEGIN(of(device));
    if (told_of("uuid", of(device), value)) snprintf(uuid, length, "%s", value);
    else snprintf(uuid, length, "GPU-%08x-5eed-4000-8000-000000000000", 0xa0000000u + (unsigned int)of(device));
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *device, unsigned int sensor, unsigned int *celsius) {
    char value[LINE_MAX_BYTES];
    if (sensor) return INVALID_ARGUMENT;
    BEGIN(of(device));
    *celsius = told_of("temperature", of(device), value) ? (unsigned int)strtol(value, NULL, 0)
                                                         : (of(device) ? 38u : 41u);
    return SUCCESS;
}

int nvmlDeviceGetTemperatureThreshold(void *device, unsigned int threshold, unsigned int *celsius) {
    int gpu = of(device);
    BEGIN(gpu);
    if (threshold == 4) *celsius = (unsigned int)number("target_min", gpu, 65);
    else if (threshold == 5) *celsius = targets[gpu] ? targets[gpu] : (unsigned int)number("target", gpu, 83);
    else if (threshold == 6) *celsius = (unsigned int)number("target_max", gpu, 88);
    else return INVALID_ARGUMENT;
    return SUCCESS;
}

int nvmlDeviceSetTemperatureThreshold(void *device, unsigned int threshold, unsigned int *celsius) {
    char value[LINE_MAX_BYTES];
    if (threshold != 5) return INVALID_ARGUMENT;
    BEGIN(of(device));
    if (!told_of("target_set", of(device), value)) targets[of(device)] = *celsius;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned int *milliwatts) {
    BEGIN(of(device));
    *milliwatts = (unsigned int)number("power", of(device), of(device) ? 14000 : 312000);
    return SUCCESS;
}

int nvmlDeviceGetPowerManagementLimit(void *device, unsigned int *milliwatts) {
    int gpu = of(device);
    BEGIN(gpu);
    *milliwatts = limits[gpu] ? limits[gpu] : (unsigned int)number("limit", gpu, gpu ? 170000 : 450000);
    return SUCCESS;
}

int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned int *minimum, unsigned int *maximum) {
    BEGIN(of(device));
    *minimum = (unsigned int)number("limit_min", of(device), of(device) ? 100000 : 150000);
    *maximum = (unsigned int)number("limit_max", of(device), of(device) ? 200000 : 600000);
    return SUCCESS;
}

int nvmlDeviceSetPowerManagementLimit(void *device, unsigned int milliwatts) {
    char value[LINE_MAX_BYTES];
    BEGIN(of(device));
    if (!told_of("limit_set", of(device), value)) limits[of(device)] = milliwatts;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    int gpu = of(device);
    BEGIN(gpu);
    memory->total = number("memory", gpu, gpu ? 12884901888ull : 25757220864ull);
    memory->free = number("free", gpu, memory->total - 512ull * 1024 * 1024);
    memory->used = memory->total - memory->free;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, utilisation_t *rates) {
    BEGIN(of(device));
    rates->gpu = (unsigned int)number("utilisation", of(device), 0);
    rates->memory = 0;
    return SUCCESS;
}

/* As NVML does it: with too little room, the number of processes and INSUFFICIENT_SIZE. */
static int list(const char *kind, int gpu, unsigned int *count, process_t *processes) {
    char value[LINE_MAX_BYTES], *rest = value;
    unsigned int found = 0, room = processes ? *count : 0;
    if (told_of(kind, gpu, value)) {
        for (char *word; (word = strsep(&rest, ",")) != NULL && *word; found++) {
            char *bytes = strchr(word, ':');
            if (found >= room) continue;
            processes[found].pid = (unsigned int)strtoul(word, NULL, 10);
            processes[found].memory = bytes && bytes[1] != '-' ? strtoull(bytes + 1, NULL, 10) : UNTOLD;
            processes[found].gpu_instance = processes[found].compute_instance = ~0u;
        }
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#ifdef OLD_DRIVER
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons)
#else
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons)
#endif
{
    BEGIN(of(device));
    *reasons = number("reasons", of(device), 0);
    return SUCCESS;
}

#ifdef OLD_DRIVER
#define PROCESSES(kind) nvmlDeviceGet##kind##RunningProcesses_v2
#else
#define PROCESSES(kind) nvmlDeviceGet##kind##RunningProcesses_v3
#endif

int PROCESSES(Compute)(void *device, unsigned int *count, process_t *processes) {
    BEGIN(of(device));
    return list("compute", of(device), count, processes);
}

int PROCESSES(Graphics)(void *device, unsigned int *count, process_t *processes) {
    BEGIN(of(device));
    return list("graphics", of(device), count, processes);
}
