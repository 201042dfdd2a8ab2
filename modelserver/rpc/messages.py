"""Messages and services of gRPC. Written by `protos/generate.py` from `protos/`: do not edit.

Their descriptors live in a pool of their own, so that stubs of clients in the same process do not clash with them.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

POOL: Final = DescriptorPool()


def _message(name: str) -> Any:
    return GetMessageClass(POOL.FindMessageTypeByName(name))


# fmt: off
# google/protobuf/empty.proto
POOL.AddSerializedFile(
    b'\n\x1bgoogle/protobuf/empty.p'
    b'roto\x12\x0fgoogle.protobuf"\x07\n\x05'
    b'EmptyB}\n\x13com.google.proto'
    b'bufB\nEmptyProtoP\x01Z.google'
    b'.golang.org/protobuf/type'
    b's/known/emptypb\xf8\x01\x01\xa2\x02\x03GPB\xaa'
    b'\x02\x1eGoogle.Protobuf.WellKno'
    b'wnTypesb\x06proto3'
)
# google/protobuf/any.proto
POOL.AddSerializedFile(
    b'\n\x19google/protobuf/any.pro'
    b'to\x12\x0fgoogle.protobuf"6\n\x03An'
    b'y\x12\x19\n\x08type_url\x18\x01 \x01(\tR\x07type'
    b'Url\x12\x14\n\x05value\x18\x02 \x01(\x0cR\x05value'
    b'Bv\n\x13com.google.protobufB\x08'
    b'AnyProtoP\x01Z,google.golang'
    b'.org/protobuf/types/known'
    b'/anypb\xa2\x02\x03GPB\xaa\x02\x1eGoogle.Pro'
    b'tobuf.WellKnownTypesb\x06pro'
    b'to3'
)
# google/rpc/status.proto
POOL.AddSerializedFile(
    b'\n\x17google/rpc/status.proto'
    b'\x12\ngoogle.rpc\x1a\x19google/prot'
    b'obuf/any.proto"f\n\x06Status\x12'
    b'\x12\n\x04code\x18\x01 \x01(\x05R\x04code\x12\x18\n\x07me'
    b'ssage\x18\x02 \x01(\tR\x07message\x12.\n\x07d'
    b'etails\x18\x03 \x03(\x0b2\x14.google.pro'
    b'tobuf.AnyR\x07detailsb\x06proto'
    b'3'
)
# inference.proto
POOL.AddSerializedFile(
    b'\n\x0finference.proto\x12 org.py'
    b'torch.serve.grpc.inferenc'
    b'e\x1a\x1bgoogle/protobuf/empty.'
    b'proto\x1a\x17google/rpc/status.'
    b'proto"\x9f\x02\n\x12PredictionsRequ'
    b'est\x12\x1d\n\nmodel_name\x18\x01 \x01(\tR\t'
    b'modelName\x12#\n\rmodel_versio'
    b'n\x18\x02 \x01(\tR\x0cmodelVersion\x12U\n\x05'
    b'input\x18\x03 \x03(\x0b2?.org.pytorch'
    b'.serve.grpc.inference.Pre'
    b'dictionsRequest.InputEntr'
    b'yR\x05input\x12$\n\x0bsequence_id\x18\x04'
    b' \x01(\tH\x00R\nsequenceId\x88\x01\x01\x1a8\n\n'
    b'InputEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03'
    b'key\x12\x14\n\x05value\x18\x02 \x01(\x0cR\x05value'
    b':\x028\x01B\x0e\n\x0c_sequence_id"\xa6\x01\n\x12'
    b'PredictionResponse\x12\x1e\n\npre'
    b'diction\x18\x01 \x01(\x0cR\nprediction'
    b'\x12$\n\x0bsequence_id\x18\x02 \x01(\tH\x00R\n'
    b'sequenceId\x88\x01\x01\x12/\n\x06status\x18\x03'
    b' \x01(\x0b2\x12.google.rpc.StatusH'
    b'\x01R\x06status\x88\x01\x01B\x0e\n\x0c_sequence'
    b'_idB\t\n\x07_status"2\n\x18TorchSe'
    b'rveHealthResponse\x12\x16\n\x06heal'
    b'th\x18\x01 \x01(\tR\x06health2\xf8\x03\n\x14Infe'
    b'renceAPIsService\x12Z\n\x04Ping\x12'
    b'\x16.google.protobuf.Empty\x1a:'
    b'.org.pytorch.serve.grpc.i'
    b'nference.TorchServeHealth'
    b'Response\x12y\n\x0bPredictions\x124'
    b'.org.pytorch.serve.grpc.i'
    b'nference.PredictionsReque'
    b'st\x1a4.org.pytorch.serve.gr'
    b'pc.inference.PredictionRe'
    b'sponse\x12\x81\x01\n\x11StreamPredicti'
    b'ons\x124.org.pytorch.serve.g'
    b'rpc.inference.Predictions'
    b'Request\x1a4.org.pytorch.ser'
    b've.grpc.inference.Predict'
    b'ionResponse0\x01\x12\x84\x01\n\x12StreamP'
    b'redictions2\x124.org.pytorch'
    b'.serve.grpc.inference.Pre'
    b'dictionsRequest\x1a4.org.pyt'
    b'orch.serve.grpc.inference'
    b'.PredictionResponse(\x010\x01b\x06'
    b'proto3'
)
# management.proto
POOL.AddSerializedFile(
    b'\n\x10management.proto\x12!org.p'
    b'ytorch.serve.grpc.managem'
    b'ent"&\n\x12ManagementResponse'
    b'\x12\x10\n\x03msg\x18\x01 \x01(\tR\x03msg"z\n\x14Des'
    b'cribeModelRequest\x12\x1d\n\nmode'
    b'l_name\x18\x01 \x01(\tR\tmodelName\x12#'
    b'\n\rmodel_version\x18\x02 \x01(\tR\x0cmo'
    b'delVersion\x12\x1e\n\ncustomized\x18'
    b'\x03 \x01(\x08R\ncustomized"Q\n\x11List'
    b'ModelsRequest\x12\x14\n\x05limit\x18\x01 '
    b'\x01(\x05R\x05limit\x12&\n\x0fnext_page_t'
    b'oken\x18\x02 \x01(\x05R\rnextPageToken'
    b'"\xff\x02\n\x14RegisterModelRequest'
    b'\x12\x1d\n\nbatch_size\x18\x01 \x01(\x05R\tbat'
    b'chSize\x12\x18\n\x07handler\x18\x02 \x01(\tR\x07'
    b"handler\x12'\n\x0finitial_worker"
    b's\x18\x03 \x01(\x05R\x0einitialWorkers\x12&'
    b'\n\x0fmax_batch_delay\x18\x04 \x01(\x05R\r'
    b'maxBatchDelay\x12\x1d\n\nmodel_na'
    b'me\x18\x05 \x01(\tR\tmodelName\x12)\n\x10re'
    b'sponse_timeout\x18\x06 \x01(\x05R\x0fres'
    b'ponseTimeout\x12\x18\n\x07runtime\x18\x07'
    b' \x01(\tR\x07runtime\x12 \n\x0bsynchron'
    b'ous\x18\x08 \x01(\x08R\x0bsynchronous\x12\x10\n'
    b'\x03url\x18\t \x01(\tR\x03url\x12\x1c\n\ns3_sse'
    b"_kms\x18\n \x01(\x08R\x08s3SseKms\x12'\n\x0fs"
    b'tartup_timeout\x18\x0b \x01(\x05R\x0esta'
    b'rtupTimeout"\xf1\x01\n\x12ScaleWork'
    b'erRequest\x12\x1d\n\nmodel_name\x18\x01'
    b' \x01(\tR\tmodelName\x12#\n\rmodel_'
    b'version\x18\x02 \x01(\tR\x0cmodelVersi'
    b'on\x12\x1d\n\nmax_worker\x18\x03 \x01(\x05R\tm'
    b'axWorker\x12\x1d\n\nmin_worker\x18\x04 '
    b'\x01(\x05R\tminWorker\x12\x1d\n\nnumber_'
    b'gpu\x18\x05 \x01(\x05R\tnumberGpu\x12 \n\x0bs'
    b'ynchronous\x18\x06 \x01(\x08R\x0bsynchro'
    b'nous\x12\x18\n\x07timeout\x18\x07 \x01(\x05R\x07ti'
    b'meout"W\n\x11SetDefaultReques'
    b't\x12\x1d\n\nmodel_name\x18\x01 \x01(\tR\tmo'
    b'delName\x12#\n\rmodel_version\x18'
    b'\x02 \x01(\tR\x0cmodelVersion"\\\n\x16Un'
    b'registerModelRequest\x12\x1d\n\nm'
    b'odel_name\x18\x01 \x01(\tR\tmodelNam'
    b'e\x12#\n\rmodel_version\x18\x02 \x01(\tR'
    b'\x0cmodelVersion2\x92\x06\n\x15Managem'
    b'entAPIsService\x12\x7f\n\rDescrib'
    b'eModel\x127.org.pytorch.serv'
    b'e.grpc.management.Describ'
    b'eModelRequest\x1a5.org.pytor'
    b'ch.serve.grpc.management.'
    b'ManagementResponse\x12y\n\nLis'
    b'tModels\x124.org.pytorch.ser'
    b've.grpc.management.ListMo'
    b'delsRequest\x1a5.org.pytorch'
    b'.serve.grpc.management.Ma'
    b'nagementResponse\x12\x7f\n\rRegis'
    b'terModel\x127.org.pytorch.se'
    b'rve.grpc.management.Regis'
    b'terModelRequest\x1a5.org.pyt'
    b'orch.serve.grpc.managemen'
    b't.ManagementResponse\x12{\n\x0bS'
    b'caleWorker\x125.org.pytorch.'
    b'serve.grpc.management.Sca'
    b'leWorkerRequest\x1a5.org.pyt'
    b'orch.serve.grpc.managemen'
    b't.ManagementResponse\x12y\n\nS'
    b'etDefault\x124.org.pytorch.s'
    b'erve.grpc.management.SetD'
    b'efaultRequest\x1a5.org.pytor'
    b'ch.serve.grpc.management.'
    b'ManagementResponse\x12\x83\x01\n\x0fUn'
    b'registerModel\x129.org.pytor'
    b'ch.serve.grpc.management.'
    b'UnregisterModelRequest\x1a5.'
    b'org.pytorch.serve.grpc.ma'
    b'nagement.ManagementRespon'
    b'seb\x06proto3'
)
# health.proto
POOL.AddSerializedFile(
    b'\n\x0chealth.proto\x12\x0egrpc.heal'
    b'th.v1".\n\x12HealthCheckReque'
    b'st\x12\x18\n\x07service\x18\x01 \x01(\tR\x07serv'
    b'ice"\xb1\x01\n\x13HealthCheckRespon'
    b'se\x12I\n\x06status\x18\x01 \x01(\x0e21.grpc'
    b'.health.v1.HealthCheckRes'
    b'ponse.ServingStatusR\x06stat'
    b'us"O\n\rServingStatus\x12\x0b\n\x07UN'
    b'KNOWN\x10\x00\x12\x0b\n\x07SERVING\x10\x01\x12\x0f\n\x0bN'
    b'OT_SERVING\x10\x02\x12\x13\n\x0fSERVICE_U'
    b'NKNOWN\x10\x032\xae\x01\n\x06Health\x12P\n\x05Ch'
    b'eck\x12".grpc.health.v1.Heal'
    b'thCheckRequest\x1a#.grpc.hea'
    b'lth.v1.HealthCheckRespons'
    b'e\x12R\n\x05Watch\x12".grpc.health.'
    b'v1.HealthCheckRequest\x1a#.g'
    b'rpc.health.v1.HealthCheck'
    b'Response0\x01b\x06proto3'
)
# google/rpc/error_details.proto
POOL.AddSerializedFile(
    b'\n\x1egoogle/rpc/error_detail'
    b's.proto\x12\ngoogle.rpc"\xb9\x01\n\tE'
    b'rrorInfo\x12\x16\n\x06reason\x18\x01 \x01(\tR'
    b'\x06reason\x12\x16\n\x06domain\x18\x02 \x01(\tR\x06'
    b'domain\x12?\n\x08metadata\x18\x03 \x03(\x0b2'
    b'#.google.rpc.ErrorInfo.Me'
    b'tadataEntryR\x08metadata\x1a;\n\r'
    b'MetadataEntry\x12\x10\n\x03key\x18\x01 \x01('
    b'\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05va'
    b'lue:\x028\x01b\x06proto3'
)
# modelserver/ordered.proto
POOL.AddSerializedFile(
    b'\n\x19modelserver/ordered.pro'
    b'to\x12\x13modelserver.ordered"\xc0'
    b'\x01\n\x12PredictionsRequest\x12\x1d\n\n'
    b'model_name\x18\x01 \x01(\tR\tmodelNa'
    b'me\x12#\n\rmodel_version\x18\x02 \x01(\t'
    b'R\x0cmodelVersion\x120\n\x05input\x18\x03'
    b' \x03(\x0b2\x1a.modelserver.ordere'
    b'd.InputR\x05input\x12$\n\x0bsequenc'
    b'e_id\x18\x04 \x01(\tH\x00R\nsequenceId\x88'
    b'\x01\x01B\x0e\n\x0c_sequence_id"/\n\x05Inp'
    b'ut\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05v'
    b'alue\x18\x02 \x01(\x0cR\x05valueb\x06proto3'
)
# fmt: on

INFERENCE_SERVICE: Final = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT_SERVICE: Final = "org.pytorch.serve.grpc.management.ManagementAPIsService"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"

Empty = _message("google.protobuf.Empty")
Status = _message("google.rpc.Status")
PredictionsRequest = _message("org.pytorch.serve.grpc.inference.PredictionsRequest")
PredictionResponse = _message("org.pytorch.serve.grpc.inference.PredictionResponse")
TorchServeHealthResponse = _message("org.pytorch.serve.grpc.inference.TorchServeHealthResponse")
ManagementResponse = _message("org.pytorch.serve.grpc.management.ManagementResponse")
DescribeModelRequest = _message("org.pytorch.serve.grpc.management.DescribeModelRequest")
ListModelsRequest = _message("org.pytorch.serve.grpc.management.ListModelsRequest")
RegisterModelRequest = _message("org.pytorch.serve.grpc.management.RegisterModelRequest")
ScaleWorkerRequest = _message("org.pytorch.serve.grpc.management.ScaleWorkerRequest")
SetDefaultRequest = _message("org.pytorch.serve.grpc.management.SetDefaultRequest")
UnregisterModelRequest = _message("org.pytorch.serve.grpc.management.UnregisterModelRequest")
HealthCheckRequest = _message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = _message("grpc.health.v1.HealthCheckResponse")
ErrorInfo = _message("google.rpc.ErrorInfo")
OrderedPredictionsRequest = _message("modelserver.ordered.PredictionsRequest")
OrderedInput = _message("modelserver.ordered.Input")
