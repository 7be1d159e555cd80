/* A library ps5000a whose PicoScopes are simulated: clients of the real one use it unchanged.

   OpenUnit("127.0.0.1:43121")      the serial number is the address of the simulated one; NULL: what HIL_PS5000A holds
   every call                       a line "SIGG:ARB? 0,2000000,...", answered by "status,value,..." or a block of samples

   Statuses are those of PicoStatus.h. A function that is not simulated answers PICO_NOT_USED. One thread at a time, as the real
   one asks for. Source: PicoScope 5000 Series (A API) Programmer's Guide; the prototypes as the package picosdk 1.1 has them. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define UNITS 16
#define CHANNELS 4
#define LONGEST_S 10
enum { OK = 0, TOO_MANY = 1, NOT_FOUND = 3, SILENT = 7, NO_HANDLE = 12, NO_PARAMETER = 13, NO_CHANNEL = 16, NOT_USED = 63 };

typedef struct { int wire; int16_t *buffer[CHANNELS]; int32_t length[CHANNELS]; } Unit;
static Unit units[UNITS + 1]; /* a handle is a place in it, from 1 on; wire 0: nobody */

static Unit *of(int16_t handle) { return handle > 0 && handle <= UNITS && units[handle].wire ? &units[handle] : NULL; }

static int sent(int wire, const void *data, size_t size) {
  for (const char *at = data; size;) {
    ssize_t count = send(wire, at, size, MSG_NOSIGNAL);
    if (count <= 0) return 0;
    at += count, size -= count;
  }
  return 1;
}

static int got(int wire, void *data, size_t size) {
  for (char *at = data; size;) {
    ssize_t count = recv(wire, at, size, 0);
    if (count <= 0) return 0;
    at += count, size -= count;
  }
  return 1;
}

/* A line up to newline, which is taken off. */
static int line(int wire, char *text, size_t room) {
  for (size_t n = 0; n < room; n++) {
    if (!got(wire, text + n, 1)) return 0;
    if (text[n] == '\n') return text[n] = 0, 1;
  }
  return 0;
}

/* Ask; the status, and what stands behind it in `rest`, 256 bytes, or NULL. */
static uint32_t ask(int16_t handle, char *rest, const char *format, ...) {
  char text[512], answer[256];
  Unit *unit = of(handle);
  if (!unit) return NO_HANDLE;
  va_list values;
  va_start(values, format);
  int size = vsnprintf(text, sizeof text - 1, format, values);
  va_end(values);
  text[size++] = '\n';
  if (!sent(unit->wire, text, size) || !line(unit->wire, answer, sizeof answer)) return SILENT;
  char *comma = strchr(answer, ',');
  if (rest) strcpy(rest, comma ? comma + 1 : "");
  return (uint32_t)strtoul(answer, NULL, 10);
}

static uint32_t number(int16_t handle, double *value, const char *question) {
  char rest[256];
  uint32_t status = ask(handle, rest, question);
  *value = atof(rest);
  return status;
}

/* Samples of a channel as "0,#<places><bytes><samples>", or a status alone. */
static uint32_t block(int wire, int channel, uint32_t first, uint32_t *samples, int16_t *into) {
  char text[80], places = 0, digits[10] = "";
  int size = snprintf(text, sizeof text, "BLOC:VAL? %d,%u,%u\n", channel, first, *samples);
  if (!sent(wire, text, size)) return SILENT;
  for (size = 0; size < 15; size++)
    if (!got(wire, text + size, 1)) return SILENT;
    else if (text[size] == ',' || text[size] == '\n') break;
  if (text[size] == '\n') return (uint32_t)atol(text);
  if (!got(wire, &places, 1) || places != '#' || !got(wire, &places, 1) || places < '1' || places > '9') return SILENT;
  if (!got(wire, digits, places - '0')) return SILENT;
  size_t bytes = (size_t)atol(digits);
  if (bytes > 2 * (size_t)*samples || !got(wire, into, bytes) || !line(wire, text, sizeof text)) return SILENT;
  *samples = (uint32_t)(bytes / 2);
  return OK;
}

uint32_t ps5000aOpenUnit(int16_t *handle, char *serial, int32_t resolution) {
  const char *where = serial ? serial : getenv("HIL_PS5000A");
  const char *colon = where ? strrchr(where, ':') : NULL;
  struct sockaddr_in there = {.sin_family = AF_INET};
  struct timeval longest = {.tv_sec = LONGEST_S};
  char host[64];
  int one = 1, place = 1;
  *handle = 0;
  if (!colon || colon - where >= (long)sizeof host) return NOT_FOUND;
  memcpy(host, where, colon - where), host[colon - where] = 0;
  there.sin_port = htons((uint16_t)atoi(colon + 1));
  if (inet_pton(AF_INET, host, &there.sin_addr) != 1) return NOT_FOUND;
  while (place <= UNITS && units[place].wire) place++;
  if (place > UNITS) return TOO_MANY;
  int wire = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(wire, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest);
  setsockopt(wire, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(wire, (struct sockaddr *)&there, sizeof there)) return close(wire), NOT_FOUND;
  units[place] = (Unit){.wire = wire};
  uint32_t status = ask(place, NULL, "UNIT:OPEN? %d", resolution);
  if (status == OK || status == 282 || status == 286) return *handle = place, status; /* on the power of USB: a warning */
  close(wire), units[place].wire = 0;
  return status;
}

uint32_t ps5000aCloseUnit(int16_t handle) {
  uint32_t status = ask(handle, NULL, "UNIT:CLOS?");
  if (of(handle)) close(units[handle].wire), units[handle].wire = 0;
  return status;
}

uint32_t ps5000aGetUnitInfo(int16_t handle, char *text, int16_t room, int16_t *needed, uint32_t info) {
  char rest[256];
  uint32_t status = ask(handle, rest, "UNIT:INF? %u", info);
  if (text && room > 0) snprintf(text, room, "%s", rest);
  if (needed) *needed = (int16_t)strlen(rest) + (text ? 0 : 1);
  return status;
}

uint32_t ps5000aPingUnit(int16_t handle) { return ask(handle, NULL, "UNIT:PING?"); }
uint32_t ps5000aChangePowerSource(int16_t handle, uint32_t source) { return ask(handle, NULL, "UNIT:POW? %u", source); }
uint32_t ps5000aSetDeviceResolution(int16_t handle, int32_t bits) { return ask(handle, NULL, "UNIT:RES? %d", bits); }
uint32_t ps5000aSetBandwidthFilter(int16_t handle, int32_t channel, int32_t limit) { return ask(handle, NULL, "UNIT:PING?"); }
uint32_t ps5000aFlashLed(int16_t handle, int16_t start) { return ask(handle, NULL, "UNIT:PING?"); }

uint32_t ps5000aMaximumValue(int16_t handle, int16_t *value) {
  double found;
  uint32_t status = number(handle, &found, "UNIT:MAX?");
  *value = (int16_t)found;
  return status;
}

uint32_t ps5000aMinimumValue(int16_t handle, int16_t *value) {
  uint32_t status = ps5000aMaximumValue(handle, value);
  *value = -*value;
  return status;
}

uint32_t ps5000aMemorySegments(int16_t handle, uint32_t segments, int32_t *samples) {
  char rest[256];
  uint32_t status = ask(handle, rest, "BLOC:SEGM? %u", segments);
  if (samples) *samples = atoi(rest);
  return status;
}

uint32_t ps5000aSetChannel(int16_t handle, int32_t channel, int16_t on, int32_t coupling, int32_t range, float offset) {
  return ask(handle, NULL, "CHAN:SET? %d,%d,%d,%d,%.9g", channel, on, coupling, range, offset);
}

uint32_t ps5000aSetSimpleTrigger(
    int16_t handle, int16_t on, int32_t source, int16_t level, int32_t direction, uint32_t delay, int16_t automatic_ms) {
  return ask(handle, NULL, "TRIG:SIMP? %d,%d,%d,%d,%u,%d", on, source, level, direction, delay, automatic_ms);
}

uint32_t ps5000aGetTimebase2(
    int16_t handle, uint32_t timebase, int32_t samples, float *interval_ns, int32_t *most, uint32_t segment) {
  char rest[256] = "";
  uint32_t status = ask(handle, rest, "BLOC:TIM? %u,%d", timebase, samples);
  char *comma = strchr(rest, ',');
  if (interval_ns) *interval_ns = (float)atof(rest);
  if (most) *most = comma ? atoi(comma + 1) : 0;
  return status;
}

uint32_t ps5000aRunBlock(
    int16_t handle, int32_t before, int32_t behind, uint32_t timebase, int32_t *busy_ms, uint32_t segment, void *ready, void *p) {
  if (ready) return NOT_USED; /* callbacks are not simulated */
  if (busy_ms) *busy_ms = 0;
  return ask(handle, NULL, "BLOC:RUN? %d,%d,%u", before, behind, timebase);
}

uint32_t ps5000aIsReady(int16_t handle, int16_t *ready) {
  double found;
  uint32_t status = number(handle, &found, "BLOC:READ?");
  *ready = (int16_t)found;
  return status;
}

uint32_t ps5000aStop(int16_t handle) { return ask(handle, NULL, "BLOC:STOP?"); }

uint32_t ps5000aSetDataBuffer(
    int16_t handle, int32_t channel, int16_t *buffer, int32_t length, uint32_t segment, int32_t mode) {
  Unit *unit = of(handle);
  if (!unit) return NO_HANDLE;
  if (channel < 0 || channel >= CHANNELS) return NO_CHANNEL;
  unit->buffer[channel] = buffer, unit->length[channel] = length;
  return OK;
}

uint32_t ps5000aSetDataBuffers(
    int16_t handle, int32_t channel, int16_t *most, int16_t *least, int32_t length, uint32_t segment, int32_t mode) {
  return ps5000aSetDataBuffer(handle, channel, most, length, segment, mode);
}

uint32_t ps5000aGetValues(
    int16_t handle, uint32_t first, uint32_t *samples, uint32_t ratio, int32_t mode, uint32_t segment, int16_t *overflow) {
  Unit *unit = of(handle);
  double over;
  if (!unit) return NO_HANDLE;
  if (mode) return NOT_USED; /* no downsampling */
  for (int channel = 0; channel < CHANNELS; channel++) {
    if (!unit->buffer[channel]) continue;
    if (unit->length[channel] < (int32_t)*samples) *samples = unit->length[channel];
    uint32_t status = block(unit->wire, channel, first, samples, unit->buffer[channel]);
    if (status) return status;
  }
  uint32_t status = number(handle, &over, "BLOC:OVER?");
  if (overflow) *overflow = (int16_t)over;
  return status;
}

uint32_t ps5000aSetSigGenArbitrary(
    int16_t handle, int32_t offset_uv, uint32_t vpp_uv, uint32_t phase, uint32_t stop, uint32_t step, uint32_t dwell,
    int16_t *codes, int32_t count, int32_t sweep, int32_t more, int32_t index, uint32_t shots, uint32_t sweeps, int32_t kind,
    int32_t source, int16_t level) {
  char text[256], answer[256];
  Unit *unit = of(handle);
  if (!unit) return NO_HANDLE;
  if (!codes || count < 1 || stop != phase || index || more || sweeps) return NO_PARAMETER; /* no sweeps, one way through */
  int size = snprintf(text, sizeof text, "SIGG:ARB? %d,%u,%u,%u,%d,%d,#8%08d", offset_uv, vpp_uv, phase, shots, kind, source, 2 * count);
  int good = sent(unit->wire, text, size) && sent(unit->wire, codes, 2 * (size_t)count) && sent(unit->wire, "\n", 1);
  return good && line(unit->wire, answer, sizeof answer) ? (uint32_t)atol(answer) : SILENT;
}

uint32_t ps5000aSetSigGenBuiltInV2(
    int16_t handle, int32_t offset_uv, uint32_t vpp_uv, int32_t wave, double hertz, double stop, double step, double dwell,
    int32_t sweep, int32_t more, uint32_t shots, uint32_t sweeps, int32_t kind, int32_t source, int16_t level) {
  if (stop != hertz || more || sweeps) return NO_PARAMETER;
  return ask(handle, NULL, "SIGG:BUIL? %d,%u,%d,%.12g,%u,%d,%d", offset_uv, vpp_uv, wave, hertz, shots, kind, source);
}

uint32_t ps5000aSetSigGenBuiltIn(
    int16_t handle, int32_t offset_uv, uint32_t vpp_uv, int32_t wave, float hertz, float stop, float step, float dwell,
    int32_t sweep, int32_t more, uint32_t shots, uint32_t sweeps, int32_t kind, int32_t source, int16_t level) {
  return ps5000aSetSigGenBuiltInV2(
      handle, offset_uv, vpp_uv, wave, hertz, stop, step, dwell, sweep, more, shots, sweeps, kind, source, level);
}

uint32_t ps5000aSigGenFrequencyToPhase(int16_t handle, double hertz, int32_t index, uint32_t count, uint32_t *phase) {
  char rest[256];
  uint32_t status = index ? NO_PARAMETER : ask(handle, rest, "SIGG:PHAS? %.15g,%u", hertz, count);
  *phase = status ? 0 : (uint32_t)strtoul(rest, NULL, 10);
  return status;
}

uint32_t ps5000aSigGenArbitraryMinMaxValues(
    int16_t handle, int16_t *low, int16_t *high, uint32_t *fewest, uint32_t *most) {
  double found;
  uint32_t status = number(handle, &found, "SIGG:SIZE?");
  *low = -32768, *high = 32767, *fewest = 10, *most = (uint32_t)found;
  return status;
}

uint32_t ps5000aSigGenSoftwareControl(int16_t handle, int16_t state) { return ask(handle, NULL, "SIGG:SOFT? %d", state); }

#define NONE(name) uint32_t ps5000a##name(void) { return NOT_USED; }
NONE(OpenUnitAsync) NONE(OpenUnitProgress) NONE(IsLedFlashing) NONE(GetTimebase) NONE(SetSigGenPropertiesArbitrary)
NONE(SetSigGenPropertiesBuiltIn) NONE(SetEts) NONE(SetTriggerChannelProperties) NONE(SetTriggerChannelPropertiesV2)
NONE(SetAutoTriggerMicroSeconds) NONE(SetTriggerChannelConditions) NONE(SetTriggerChannelConditionsV2)
NONE(SetTriggerChannelDirections) NONE(SetTriggerChannelDirectionsV2) NONE(SetTriggerDelay) NONE(SetPulseWidthQualifier)
NONE(IsTriggerOrPulseWidthQualifierEnabled) NONE(GetTriggerTimeOffset64) NONE(GetValuesTriggerTimeOffsetBulk64)
NONE(SetEtsTimeBuffer) NONE(RunStreaming) NONE(GetStreamingLatestValues) NONE(NoOfStreamingValues) NONE(GetMaxDownSampleRatio)
NONE(GetValuesAsync) NONE(GetValuesBulk) NONE(GetValuesOverlapped) NONE(GetValuesOverlappedBulk)
NONE(TriggerWithinPreTriggerSamples) NONE(GetTriggerInfoBulk) NONE(EnumerateUnits) NONE(GetChannelInformation)
NONE(GetAnalogueOffset) NONE(GetMaxSegments) NONE(CurrentPowerSource) NONE(SetNoOfCaptures) NONE(GetNoOfCaptures)
NONE(GetNoOfProcessedCaptures) NONE(GetDeviceResolution) NONE(SetDigitalPort) NONE(SetPulseWidthDigitalPortProperties)
NONE(SetTriggerDigitalPortProperties) NONE(SetPulseWidthQualifierProperties) NONE(SetPulseWidthQualifierConditions)
NONE(SetPulseWidthQualifierDirections) NONE(GetMinimumTimebaseStateless)
