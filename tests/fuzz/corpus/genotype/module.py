from collections import namedtuple
Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')
PRIMITIVES = ['none', 'skip_connect']
A = Genotype(normal=[('skip_connect', 0), ('none', 1)], normal_concat=[2], reduce=[('skip_connect', 0), ('none', 1)], reduce_concat=[2])
B = A
C = Genotype(normal=[('sep_conv_3x3', 0), ('none', 1)], normal_concat=[2], reduce=[('skip_connect', 0), ('none', 1)], reduce_concat=[2])
